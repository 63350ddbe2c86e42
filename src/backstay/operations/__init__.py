"""One module per thing the product does; no database needed."""
