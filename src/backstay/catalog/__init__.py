"""Records of runs, schedules, people and alerts. What is in a repository can be read from there again."""
