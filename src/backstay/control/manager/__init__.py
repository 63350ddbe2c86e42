"""BackupManager: the one way in which commands, jobs and Python programs do things."""
