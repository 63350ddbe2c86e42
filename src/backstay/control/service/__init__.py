"""The service: everything opened once, jobs run, and what has to happen by itself kept going."""
