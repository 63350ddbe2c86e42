"""Agents with real parts: a server with TLS, and agents as processes."""
