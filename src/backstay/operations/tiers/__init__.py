"""The cold tier: what lies there, moves there, and comes back."""
