"""The programs, which run from a clone: `python -m experiments.train`."""

import pathlib
import sys

# First on the path, so that a `configs.py` in the working directory hides no config of the clone.
_CLONE = str(pathlib.Path(__file__).parents[1])
if sys.path[:1] != [_CLONE]:
    sys.path.insert(0, _CLONE)
