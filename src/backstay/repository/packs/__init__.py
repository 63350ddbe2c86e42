"""Packs as they are stored, and the blobs in them: opened with the keys of their epochs and nothing else."""
