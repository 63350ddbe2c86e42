"""Object stores, against real servers that the fixtures start."""
