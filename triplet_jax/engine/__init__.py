"""The engine: sums over all anchors, and their gradient."""
