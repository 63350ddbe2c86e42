"""Locks of a store on what snapshots need, and what this machine remembers of them."""
