"""Snapshots as they are stored: manifests, what holds them, what marks them as deleted, and how people name them."""
