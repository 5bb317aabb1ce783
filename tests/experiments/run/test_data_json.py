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
