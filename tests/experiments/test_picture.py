"""The picture of a run: its test split as raw inputs and as embeddings, side by side."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import picture
from tests.support import bare_runs, mains
from triplet_jax import errors
from triplet_jax.analysis import projection
from triplet_jax.runs import files


def test_both_sides_have_the_test_examples_and_their_scores(tmp_path, monkeypatch, capsys):
    run, projected = bare_runs.write(tmp_path / "run"), []
    scores = {"raw_pixels": {"retrieval": {"map_at_r": None}}}  # too few examples tell no score
    scores["embedding"] = {"retrieval": {"map_at_r": 0.98765}}
    files.write_json(run / "result.json", scores)
    monkeypatch.setattr(projection, "tsne", lambda x: projected.append(x) or x[:, :2])
    output = tmp_path / "digits.png"
    mains.call(picture.main, f"--workdir={run}", f"--output={output}")
    with np.load(run / "embeddings.npz") as saved, np.load(tmp_path / "features.npz") as data:
        test = saved["split"] == "test"
        raw = data["x"][test]
        np.testing.assert_allclose(projected[0], raw / np.linalg.norm(raw, axis=1, keepdims=True))
        np.testing.assert_array_equal(projected[1], saved["embeddings"][test])
    titles = [side.get_title() for side in plt.gcf().axes]
    plt.close()
    assert titles == ["raw pixels", "embedding, semi_hard: MAP@R 0.988"]
    assert output.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"written to {output}\n"


def test_a_run_that_was_not_evaluated_has_no_picture(tmp_path):
    run = bare_runs.write(tmp_path / "run")
    with pytest.raises(errors.InputError, match="holds no evaluation. Make one: python -m exper"):
        mains.call(picture.main, f"--workdir={run}", f"--output={tmp_path / 'a.png'}")
    assert not (tmp_path / "a.png").exists()
