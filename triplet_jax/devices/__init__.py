"""Many devices and many processes: what crosses them, and the signals that end them."""
