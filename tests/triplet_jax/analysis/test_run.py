"""What a run saved is read, or what it lacks is named."""

import json

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.analysis import run


@pytest.fixture
def workdir(tmp_path, blobs):
    x, labels = blobs
    (tmp_path / "config.json").write_text(json.dumps({"mining": {"miner": "semi_hard"}}))
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}, {"step": 2, "validation/p": 0.9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = np.where(np.arange(60) % 2, "test", "train")
    np.savez(tmp_path / "embeddings.npz", embeddings=x, labels=labels, split=split)
    return tmp_path


def test_a_run_is_read_from_its_files(workdir, blobs):
    found = run.load(workdir)
    np.testing.assert_array_equal(found.embeddings, blobs[0])
    assert found.config["mining"]["miner"] == "semi_hard"
    assert list(found.metrics.step) == [1, 2]
    assert np.isnan(found.metrics["validation/p"].iloc[0])
    assert found.metrics.iloc[1]["validation/p"] == 0.9
    assert found.where("test").sum() == 30
    np.testing.assert_array_equal(found.given, found.labels)
    given_labels = found.labels[::2].copy()
    given_labels[3] = 4
    np.savez(workdir / "label_noise.npz", positions=np.arange(0, 60, 2), given=given_labels)
    assert np.flatnonzero(run.load(workdir).given != found.labels).tolist() == [6]


@pytest.mark.parametrize(
    ("broken", "mends"),
    [
        ("config.json", "Train one into that folder"),
        ("embeddings.npz", "Train it to its end, or evaluate it"),
        ("split", r"lacks \['split'\]"),
    ],
)
def test_a_run_that_lacks_something_says_what_and_how_it_is_mended(workdir, broken, mends):
    if broken == "split":
        np.savez(workdir / "embeddings.npz", embeddings=np.ones((2, 3)), labels=np.arange(2))
    else:
        (workdir / broken).unlink()
    with pytest.raises(errors.InputError, match=mends):
        run.load(workdir)


def test_an_empty_split_and_a_torn_config_are_named(workdir):
    with pytest.raises(errors.InputError, match="validation split"):
        run.load(workdir).where("validation")
    with pytest.raises(errors.InputError, match="validation"):
        run.load(workdir).where("valid")
    (workdir / "config.json").write_text("{")
    with pytest.raises(errors.InputError, match="config.json cannot be read"):
        run.load(workdir)


def test_files_that_do_not_fit_together_are_named(workdir, blobs):
    x, labels = blobs
    split = np.full(60, "test")
    for changed in ({"labels": labels[1:]}, {"embeddings": labels}, {"split": labels}):
        arrays = {"embeddings": x, "labels": labels, "split": split} | changed
        np.savez(workdir / "embeddings.npz", **arrays)
        with pytest.raises(errors.InputError, match="its arrays do not fit together"):
            run.load(workdir)
    np.savez(workdir / "embeddings.npz", embeddings=x, labels=labels, split=split)
    for positions in ([60], [0, 1, 2], [0.5, 1.5]):
        np.savez(workdir / "label_noise.npz", positions=positions, given=[1, 2])
        with pytest.raises(errors.InputError, match="label_noise.npz is damaged: it does not fit"):
            run.load(workdir)
