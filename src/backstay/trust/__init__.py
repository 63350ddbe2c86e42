"""Who can open a repository, and who vouches for what lies in it."""
