"""PostgreSQL clusters: base backups, receiving, recovery to any moment, and how they are doing."""
