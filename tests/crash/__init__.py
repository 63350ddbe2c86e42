"""Stops and failures at every point of every operation, and what is left afterwards."""
