"""What one run of a policy does, from its first hook to its last."""
