"""What is backed up, and how it goes back: a source yields entries, a target takes them."""
