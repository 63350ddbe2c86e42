"""What archive_command calls: segments that a server hands over, one by one or through a resident process."""
