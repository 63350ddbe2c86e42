"""Where objects are kept: one small interface, its backends, and the registry of addresses."""
