"""When which policy runs: times by the clocks of a zone, what was missed, and jobs for what is due."""
