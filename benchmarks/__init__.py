"""Measurements of the whole program; run them as modules from the checkout (see README.md)."""
