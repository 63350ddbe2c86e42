"""What the product does, one room for each subject; no database needed."""
