"""A small pipeline with real files: measurements of temperature become a model and a report about it."""
