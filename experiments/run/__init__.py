"""One training run: its training, its scores, and its folder."""
