"""Points that the tests of several modules analyse."""

import numpy as np
import pytest


@pytest.fixture
def blobs():
    """Five classes of 12 points, near enough to touch, of which two touch most."""
    random = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [2, 0, 0], [0, 6, 0], [0, 0, 7], [9, 9, 0]], np.float64)
    labels = np.repeat(np.arange(5), 12)
    x = centres[labels] + random.normal(size=(60, 3))
    return x.astype(np.float32), labels
