"""How hard the examples of finished runs are, as `experiments.score` writes it."""

import numpy as np

from tests.support import bare_runs, mains


def test_examples_are_as_hard_as_their_neighbours_say(tmp_path):
    run, again, noisy, without = (
        bare_runs.write(tmp_path / name, dataset__label_noise=noise)
        for name, noise in (("run", 0.0), ("again", 0.0), ("noisy", 0.2), ("without", 0.0))
    )
    (without / "embeddings.npz").unlink()
    file = tmp_path / "scores.npz"
    runs, output = f"--runs={run}", f"--output={file}"
    twice, *refused = mains.said(
        "score",
        [f"{runs},{again}", output, "--groups=2"],
        [f"{runs},{noisy}", output],
        [f"--runs={without}", output],
        [runs],
        [output],
        [runs, output, "--groups=0"],
    )
    with np.load(file) as saved, np.load(run / "embeddings.npz") as embedded:
        train = embedded["split"] == "train"
        x, labels = embedded["embeddings"][train], embedded["labels"][train]
        distance = np.linalg.norm(x[:, None] - x, axis=-1)
        np.fill_diagonal(distance, np.inf)
        nearest = labels[np.argsort(distance, axis=1)] == labels[:, None]
        count = np.bincount(labels)[labels] - 1  # R of each example
        right = [found[:r].mean() for found, r in zip(nearest, count, strict=True)]
        np.testing.assert_allclose(saved["difficulty"], 1 - np.array(right), atol=1e-6)
        np.testing.assert_array_equal(saved["embeddings"], x)
        assert len(saved["groups"]) == bare_runs.CLASSES and set(saved["groups"]) == {0, 1}
        median = np.median(saved["difficulty"])
    assert f"{train.sum()} training examples by 2 runs; quartiles of 1 - R-precision: " in twice
    assert f", {median:.3f}, " in twice and f"written to {file}" in twice
    for answer, words in zip(
        refused,
        (
            "are of different data sets, or splits, or label noise: their dataset.* fields differ",
            "holds no embeddings.npz",
            "--output is missing: the .npz file to write",
            "--runs is missing: the folders of finished runs",
            "--groups=0 must be at least 1",
        ),
        strict=True,
    ):
        assert answer.startswith("error: ") and words in answer, answer
