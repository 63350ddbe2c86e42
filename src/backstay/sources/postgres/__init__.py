"""PostgreSQL: logical dumps, base backups, WAL and recovery."""
