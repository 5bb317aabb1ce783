"""Many devices and many processes: how they exchange arrays, and the signals that stop them."""
