"""Copies of repositories and snapshots elsewhere: mirrors, other keys, removable media."""
