"""What happens to runs, done to real processes, and a table of how each ended."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # where `programs` is
