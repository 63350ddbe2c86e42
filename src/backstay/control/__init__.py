"""Policies: the user's file of what is backed up, when, and how long it is kept; and what carries it out."""
