"""Jobs: asked for once, run once, on any of the processes that serve."""
