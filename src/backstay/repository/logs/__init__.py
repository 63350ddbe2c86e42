"""Numbered write-once records: what a repository says of its collections, its tiers and its values, in order."""
