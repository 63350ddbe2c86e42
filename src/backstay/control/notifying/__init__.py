"""Who is told of what: notices, whom they go to, how they get there, and alerts that are on."""
