"""The data of a run are opened again, and faults of theirs or of their record are reported."""

import pytest

from experiments.run import config_json, data_json
from tests.support import bare_runs
from tests.support.configs import config
from triplet_jax import errors
from triplet_jax.runs import files


@pytest.fixture
def workdir(tmp_path):
    return bare_runs.write(tmp_path / "run")


def opened(workdir, moved_to=None):
    return data_json.open_data(workdir, config_json.read(workdir), moved_to)


def test_data_that_are_gone_are_refused_with_the_flag_that_finds_them(workdir, tmp_path):
    (tmp_path / "features.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(errors.InputError, match="features.npz.* were moved, give --data=PATH"):
        opened(workdir)
    assert len(opened(workdir, str(tmp_path / "moved.npz"))) == 60
    with pytest.raises(errors.InputError, match="nowhere.npz") as refused:
        opened(workdir, "nowhere.npz")
    assert "--data" not in str(refused.value)


def test_digits_that_cannot_be_split_get_no_such_hint(tmp_path):
    with pytest.raises(errors.InputError, match="2.0 is no share of the examples") as refused:
        data_json.open_data(tmp_path, config(dataset__test_fraction=2.0))
    assert "--data" not in str(refused.value)


def test_a_run_goes_on_with_the_files_by_which_its_batches_are_drawn(workdir, tmp_path):
    """A file of scores that is written anew, by other runs, would change the rest of the run."""
    scores, kept = tmp_path / "scores.npz", files.read_json(workdir / "data.json")
    by_scores = config(batch__scores=str(scores))
    scores.write_bytes(b"of one run")
    (workdir / "data.json").unlink()
    data_json.remember(workdir, kept | data_json.of_files(by_scores))
    data_json.remember(workdir, kept | data_json.of_files(by_scores))
    scores.write_bytes(b"of another run")
    with pytest.raises(errors.InputError, match="began with another file .* at batch.scores. Put"):
        data_json.remember(workdir, kept | data_json.of_files(by_scores))
    assert len(opened(workdir)) == 60  # to be judged, it needs no scores
    # A run of an old version kept no digest.
    files.write_json(workdir / "data.json", kept)
    data_json.remember(workdir, kept | data_json.of_files(by_scores))
    bare_runs.edit(workdir / "data.json", files=["a"])
    with pytest.raises(errors.InputError, match=r"damaged: files=\['a'\] are no digests"):
        data_json.remember(workdir, kept | data_json.of_files(by_scores))


def test_a_damaged_record_is_refused(workdir):
    path = workdir / "data.json"
    bare_runs.edit(path, fingerprints=["a"])
    with pytest.raises(errors.InputError, match=r"data.json is damaged: fingerprints=\['a'\]"):
        opened(workdir)


def test_of_an_old_run_the_training_split_alone_is_compared(workdir):
    path = workdir / "data.json"
    whole = files.read_json(path)
    del whole["fingerprints"]
    files.write_json(path, whole)
    opened(workdir)
    bare_runs.edit(path, fingerprint="of other data")
    with pytest.raises(errors.InputError, match="examples of its train split were added"):
        opened(workdir)
