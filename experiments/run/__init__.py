"""One training run: its training, its evaluation, its folder, and what programs make of it."""
