"""Garbage: finding it, removing it without locks, and the index after it."""
