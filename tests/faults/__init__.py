"""What happens to runs, done to real processes, and a table of how each ended."""
