"""Recovery plans: what is brought back after a disaster, in which order, and how it is checked."""
