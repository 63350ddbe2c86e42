"""Ids, clock, typed events and the bounded thread pipeline."""
