"""Content-addressed values: what they are, which there are, storing, folding and removing them."""
