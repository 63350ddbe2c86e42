"""Agents: what the service hands to programs on other hosts, and those programs themselves."""
