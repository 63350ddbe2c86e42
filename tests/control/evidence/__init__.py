"""Evidence: what it says, that it cannot be changed, and how it looks."""
