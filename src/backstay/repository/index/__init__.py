"""Where every chunk lies: segments in the repository, and maps of them in memory and on disk."""
