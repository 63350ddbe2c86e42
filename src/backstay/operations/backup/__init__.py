"""Back up a source into a snapshot, and what that is made of: the walk, reading on threads, going on after a stop."""
