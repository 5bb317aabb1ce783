"""Numbers rounded to types of fewer digits, by numpy."""

import ml_dtypes
import numpy as np

DIGITS = {"float32": 23, "tf32": 10, "bfloat16": 7}


def rounded(x, name):
    """float32 numbers rounded to the nearest of a type, ties to even; in float64."""
    x = np.asarray(x, np.float32)
    if name == "bfloat16":
        return x.astype(ml_dtypes.bfloat16).astype(np.float64)
    fraction, exponent = np.frexp(x.astype(np.float64))
    scale = 2.0 ** (DIGITS[name] + 1)
    return np.ldexp(np.rint(fraction * scale) / scale, exponent)


def unit(x):
    """Rows of length 1, in float32 as the library takes them."""
    x = np.asarray(x, np.float32)
    return (x / np.sqrt((x * x).sum(axis=1, keepdims=True))).astype(np.float32)
