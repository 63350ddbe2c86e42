"""Bytes on their way in and out: chunks in packs, and contents of any length as chunks."""
