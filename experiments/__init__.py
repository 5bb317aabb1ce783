"""The programs, which run from a clone: `python -m experiments.train`."""

import gc
import pathlib
import sys

# First on the path, so that a `configs.py` in the working directory hides no config of the clone.
_CLONE = str(pathlib.Path(__file__).parents[1])
if sys.path[:1] != [_CLONE]:
    sys.path.insert(0, _CLONE)

# Imports, and the tracing of a step, make a million objects and hardly any garbage. By Python's
# default, an eighth of the time to the first step went into looking for it.
gc.set_threshold(50_000)
