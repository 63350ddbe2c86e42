"""Open the repository that is meant, or make it: for commands, the service and Python programs alike."""
