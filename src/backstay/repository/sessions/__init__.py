"""Running writers, and the right to be the only one."""
