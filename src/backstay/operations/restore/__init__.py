"""Restore snapshots: files into a directory, dumps and databases into what reads them."""
