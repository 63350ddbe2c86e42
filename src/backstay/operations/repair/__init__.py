"""Repair a repository from what is left of it, and heal it from another copy."""
