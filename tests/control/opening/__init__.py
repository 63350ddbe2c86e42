"""Opening and creating repositories: key files."""
