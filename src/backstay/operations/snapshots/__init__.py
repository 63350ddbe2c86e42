"""What snapshots hold: walked through, looked at, and written anew without what is lost."""
