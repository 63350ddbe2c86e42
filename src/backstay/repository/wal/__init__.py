"""What databases log: objects in the repository, and files that wait for it on this machine."""
