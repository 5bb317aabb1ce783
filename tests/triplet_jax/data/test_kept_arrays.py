"""Arrays that are kept for later runs."""

import numpy as np

from triplet_jax.data import kept_arrays


def test_arrays_that_cannot_be_kept_are_given_with_a_warning(tmp_path, caplog):
    folder = tmp_path / "taken"
    folder.write_text("a file")
    found = kept_arrays.find(str(folder), {"of": 1}, lambda: {"x": np.arange(3)}, dict)
    assert found["x"].tolist() == [0, 1, 2]
    (said,) = caplog.messages
    assert said.startswith(f"{folder}/") and "cannot be kept: " in said
