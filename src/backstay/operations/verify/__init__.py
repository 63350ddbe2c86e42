"""Verify a repository: objects, snapshots, logs, and restores that are tried."""
