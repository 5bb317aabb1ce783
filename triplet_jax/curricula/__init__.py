"""What curricula need to know of a training set: how hard its examples are, and which lie near."""
