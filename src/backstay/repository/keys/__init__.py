"""The keys of a repository: who may open it, and what is derived once it is open."""
