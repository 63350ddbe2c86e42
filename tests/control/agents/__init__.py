"""What the service hands to agents."""
