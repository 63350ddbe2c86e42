"""MySQL and MariaDB: their binary logs, received and kept, and recovery to any moment."""
