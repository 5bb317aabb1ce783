"""What the folder of a run holds: files, checkpoints, and what is logged."""
