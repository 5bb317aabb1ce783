"""What orders the examples of a training set: their difficulty, and their near neighbours."""
