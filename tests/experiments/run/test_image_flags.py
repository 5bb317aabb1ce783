"""The images that the flags of a program name."""

import pytest

from experiments.run import image_flags
from tests.experiments.run.test_galleries import paint
from triplet_jax import errors

MAX_PIXELS = 100


def test_of_a_repeated_query_none_is_lost(tmp_path):
    for i in range(3):
        paint(tmp_path / "light" / f"{i}.png", 30 * i)
    paint(tmp_path / "one.png", 0)
    one, light = tmp_path / "one.png", tmp_path / "light"
    found = image_flags.find_queries([str(one), str(light), str(one)], "refuse", MAX_PIXELS)
    assert found == [one, *(light / f"{i}.png" for i in range(3))]
    with pytest.raises(errors.InputError, match="none.png is no file and no folder"):
        image_flags.find_queries([str(one), str(tmp_path / "none.png")], "refuse", MAX_PIXELS)
