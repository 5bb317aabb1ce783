"""How hard the examples of finished runs are, as `experiments.score` writes it."""

import numpy as np
import pytest

from experiments import score
from tests.support import bare_runs, mains
from triplet_jax import errors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return bare_runs.write(tmp_path_factory.mktemp("scored") / "run")


@pytest.fixture(scope="module")
def perfect(run):
    """A run on the same data, to which no example is hard."""
    folder = bare_runs.write(run.parent / "perfect")
    with np.load(folder / "embeddings.npz") as saved:
        arrays = dict(saved)
    arrays["embeddings"] = np.tile(arrays["labels"].astype("f4")[:, None], bare_runs.DIM)
    np.savez(folder / "embeddings.npz", **arrays)
    return folder


def test_examples_are_as_hard_as_their_neighbours_say(run, perfect, tmp_path, capsys):
    file = tmp_path / "scores.npz"
    mains.call(score.main, f"--runs={run},{perfect}", f"--output={file}", "--groups=2")
    with np.load(file) as saved, np.load(run / "embeddings.npz") as embedded:
        train = embedded["split"] == "train"
        x, labels = embedded["embeddings"][train], embedded["labels"][train]
        distance = np.linalg.norm(x[:, None] - x, axis=-1)
        np.fill_diagonal(distance, np.inf)
        nearest = labels[np.argsort(distance, axis=1)] == labels[:, None]
        count = np.bincount(labels)[labels] - 1  # R of each example
        right = [found[:r].mean() for found, r in zip(nearest, count, strict=True)]
        np.testing.assert_allclose(saved["difficulty"], (1 - np.array(right)) / 2, atol=1e-6)
        np.testing.assert_array_equal(saved["embeddings"], x)
        assert len(saved["groups"]) == bare_runs.CLASSES and set(saved["groups"]) == {0, 1}
        median = np.median(saved["difficulty"])
    said = capsys.readouterr().out
    assert f"{train.sum()} training examples by 2 runs; quartiles of 1 - R-precision: " in said
    assert f", {median:.3f}, " in said and f"written to {file}" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--runs={run},{noisy}",
            "of different data sets, or splits, or label noise: their",
        ),
        ("--runs={without}", "holds no embeddings.npz"),
        ("", "--runs is missing: the folders of finished runs"),
        ("--runs={run} --groups=0", "--groups=0 must be at least 1"),
        ("--runs={run} --output=a.npy", "--output=a.npy must be a file named .*.npz"),
    ],
)
def test_runs_that_cannot_be_scored_are_refused(flags, words, run, tmp_path, monkeypatch):
    # Of the first run only what the second differs in is looked at here.
    monkeypatch.setattr(score.difficulty, "r_precision", lambda x, labels: np.zeros(len(x)))
    monkeypatch.setattr(score.difficulty, "confusable", lambda *given, **rest: None)
    runs = {"run": run}
    for name, noise in (("noisy", 0.2), ("without", 0.0)):
        if name in flags:
            runs[name] = bare_runs.write(tmp_path / name, dataset__label_noise=noise)
    (tmp_path / "without" / "embeddings.npz").unlink(missing_ok=True)
    output = f"--output={tmp_path / 'scores.npz'}"
    with pytest.raises(errors.InputError, match=words):
        mains.call(score.main, output, *flags.format(**runs).split())
