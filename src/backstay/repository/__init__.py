"""Deduplicated, encrypted blobs and snapshots on any storage backend."""
