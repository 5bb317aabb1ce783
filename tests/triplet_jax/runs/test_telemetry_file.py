"""The telemetry of a run as arrays."""

import json

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.runs import telemetry_file


def write(folder, *rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "telemetry.jsonl").write_text(lines)


def test_rows_become_arrays_with_a_leading_axis_of_steps(tmp_path):
    write(tmp_path, {"step": 1, "census": [1.0, None]}, {"step": 2, "census": [0.5, 0.5]})
    found = telemetry_file.read(tmp_path)
    np.testing.assert_array_equal(found["step"], [1, 2])
    np.testing.assert_array_equal(found["census"], [[1.0, np.nan], [0.5, 0.5]])


def test_a_run_without_telemetry_has_no_arrays(tmp_path):
    assert telemetry_file.read(tmp_path) == {}


@pytest.mark.parametrize("row", [{"step": 2}, {"step": 2, "census": [0.5]}])
def test_rows_that_differ_are_refused(row, tmp_path):
    write(tmp_path, {"step": 1, "census": [1.0, 0.0]}, row, {"step": 3})
    with pytest.raises(errors.InputError, match="its rows differ in their arrays"):
        telemetry_file.read(tmp_path)
