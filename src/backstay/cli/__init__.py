"""The command line: words and tables around the operations."""
