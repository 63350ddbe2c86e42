"""The WAL of clusters as the repository has it, with the base backups along it, and how a stream of it is stored."""
