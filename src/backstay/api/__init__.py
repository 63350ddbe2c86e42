"""The interface over HTTP: what may be asked of the service, by whom, and how it answers."""
