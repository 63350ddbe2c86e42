"""Directory trees: listings, and the stat stream that a later run compares with."""
