"""What a run writes and shows: its files, checkpoints, logs and progress."""
