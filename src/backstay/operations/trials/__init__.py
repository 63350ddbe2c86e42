"""Trials of what a machine and a store can do, with figures."""
