"""The protocol between writers and collectors, on the real code."""
