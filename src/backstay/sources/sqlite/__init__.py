"""SQLite databases: copied while they are in use, and put back only where nobody uses them."""
