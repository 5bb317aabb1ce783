"""Checkpoints are kept, restored as they were, and found out when they are damaged."""

import errno
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from triplet_jax import errors
from triplet_jax.runs import checkpoint
from triplet_jax.runs.checkpoint import Checkpoints, DamagedError, SaveError

# Reading a damaged file leaves callbacks of tensorstore behind that complain on their own.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step):
    return {"step": jnp.int32(step), "w": jnp.arange(5000, dtype=jnp.float32) + step, "none": None}


def save(folder, steps, scores=None):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, state(step), (scores or {}).get(step))
    checkpoints.wait()
    return checkpoints


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_two_latest_and_the_best_are_kept(tmp_path):
    checkpoints = save(tmp_path, [1, 2, 3, 4, 5], {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.4})
    assert checkpoints.steps == [2, 4, 5]
    step, best = Checkpoints(tmp_path, read_only=True).restore_best(state(0))
    assert step == 2
    same(best, state(2))


def test_one_that_is_removed_goes_as_a_whole(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # as if killed before its files are removed
        patch.setattr(Checkpoints, "_clear", lambda self: None)
        save(tmp_path, [1, 2, 3, 4], {4: 0.9})
    assert checkpoint.whole_steps(tmp_path) == [3, 4]
    gone = sorted(path.name for path in (tmp_path / "removed").iterdir())
    assert gone == ["1", "2"]
    for step in gone:
        parts = {path.name for path in (tmp_path / "removed" / step).iterdir()}
        assert {"state", "digest", "metrics"} <= parts
    reports = []
    restored = Checkpoints(tmp_path, report=reports.append).restore_latest(state(0))
    same(restored, state(4))
    assert not reports and not (tmp_path / "removed").exists()


def test_a_large_state_is_written_when_saving_returns(tmp_path, monkeypatch):
    finished = []
    wait = ocp.CheckpointManager.wait_until_finished

    def waiting(manager):
        wait(manager)
        finished.append(sorted(checkpoint.whole_steps(tmp_path)))

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", waiting)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    assert finished[-1] == []  # what is waited for is an earlier save
    monkeypatch.setattr(checkpoint, "_LARGE", 1000)
    checkpoints.save(2, state(2))
    assert finished[-1] == [1, 2]


def test_without_scores_the_latest_is_the_best(tmp_path):
    step, _ = save(tmp_path, [1, 2, 3]).restore_best(state(0))
    assert step == 3


def test_a_state_without_a_score_is_never_the_best(tmp_path):
    step, _ = save(tmp_path, [1, 2, 3], {1: 0.0, 2: -0.5}).restore_best(state(0))
    assert step == 1


def test_a_score_that_is_not_a_number_is_none(tmp_path):
    step, _ = save(tmp_path, [1, 2, 3], {1: 0.1, 2: float("nan"), 3: -0.5}).restore_best(state(0))
    assert step == 1


def damage_score(folder, step):
    """Another number, and still one."""
    path = folder / str(step) / "metrics" / "metrics"
    path.write_text(path.read_text().replace("0.9", "0.1"))


@pytest.mark.parametrize(
    "damage",
    [damage_score, lambda folder, step: flip_a_bit(largest(folder, step))],
    ids=["score", "data"],
)
@pytest.mark.parametrize("way", ["restore_latest", "restore_best"])
def test_a_damaged_older_best_is_noticed_and_kept(way, damage, tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, [1, 2, 3], {1: 0.9, 2: 0.3, 3: 0.2})
    damage(folder, 1)
    said = []
    checkpoints = Checkpoints(folder, report=said.append)
    getattr(checkpoints, way)(state(0))
    (warning,) = said
    assert "The checkpoint of step 1" in warning
    assert "the best of the others counts" in warning
    assert (tmp_path / "damaged_checkpoints" / "1").is_dir()
    checkpoints.save(4, state(4), 0.25)
    checkpoints.save(5, state(5), 0.25)
    checkpoints.wait()
    assert checkpoints.steps == [2, 4, 5]  # the best of those that are whole is not removed
    assert checkpoints.restore_best(state(0))[0] == 2


@pytest.mark.parametrize("damage", [damage_score, lambda *at: truncate(largest(*at))])
def test_where_nothing_is_written_a_damaged_one_is_said_with_the_way_out(damage, tmp_path):
    save(tmp_path, [1, 2, 3], {1: 0.9, 2: 0.2, 3: 0.3})
    damage(tmp_path, 1)
    with pytest.raises(DamagedError, match=rf"step 1 .*move {tmp_path / '1'} elsewhere"):
        Checkpoints(tmp_path, read_only=True).restore_best(state(0))
    shutil.rmtree(tmp_path / "1")
    assert Checkpoints(tmp_path, read_only=True).restore_best(state(0))[0] == 3


def test_where_nothing_is_written_one_without_a_score_is_said_and_stays(tmp_path):
    save(tmp_path / "checkpoints", [1])
    (tmp_path / "checkpoints" / "1" / "metrics" / "metrics").write_text("{")
    with pytest.raises(DamagedError, match="step 1 in .* has no score"):
        Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert checkpoint.whole_steps(tmp_path / "checkpoints") == [1]


def test_a_full_disk_is_named_and_what_was_saved_before(tmp_path, monkeypatch):
    checkpoints = save(tmp_path, [1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(SaveError, match=r"is of step 1: the disk is full .*Free some space"):
        checkpoints.save(2, state(2))
    assert checkpoint.whole_steps(tmp_path) == [1]


def test_a_checkpoint_of_another_model_is_refused_with_its_arrays(tmp_path):
    checkpoints = save(tmp_path, [1, 2])
    checkpoints.check_arrays(state(0))
    other = {**state(0), "w": jnp.zeros(3), "bias": jnp.zeros(2)}
    del other["step"]
    (tmp_path / "2" / "state" / "_METADATA").write_text("{")  # which restoring reports
    words = (
        r"(?s)The checkpoint of step 1 .*bias: no array there, shape \[2\] now"
        r".*step: shape \[\] there, no array now.*w: shape \[5000\] there, shape \[3\] now"
    )
    with pytest.raises(errors.InputError, match=words):
        checkpoints.check_arrays(other)


def test_the_latest_is_restored_as_it_was(tmp_path):
    save(tmp_path, [1, 2])
    same(Checkpoints(tmp_path).restore_latest(state(0)), state(2))


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_latest(state(0)) is None
    with pytest.raises(errors.InputError, match="holds no checkpoint. Train the run first"):
        checkpoints.restore_best(state(0))


def test_a_folder_whose_checkpoints_were_all_damaged_says_where_they_are(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, [1])
    flip_a_bit(largest(folder, 1))
    for _ in range(2):
        with pytest.raises(errors.InputError, match="was moved to .*damaged_checkpoints: train"):
            Checkpoints(folder, report=print).restore_best(state(0))


def files_of(folder, step):
    return sorted(p for p in (folder / str(step)).rglob("*") if p.is_file() and p.stat().st_size)


def largest(folder, step):
    return max(files_of(folder, step), key=lambda path: path.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.unlink()])
def test_a_damaged_latest_is_reported_and_the_one_before_used(damage, tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, [1, 2, 3])
    damage(largest(folder, 3))
    said = []
    checkpoints = Checkpoints(folder, report=said.append)
    same(checkpoints.restore_latest(state(0)), state(2))
    assert "step 3" in said[0]
    assert "going back to the one before" in said[0]
    # Set aside, not lost; and the step can be saved again.
    assert (tmp_path / "damaged_checkpoints" / "3").is_dir()
    checkpoints.save(3, state(3))
    checkpoints.wait()
    same(checkpoints.restore_latest(state(0)), state(3))


def test_damage_of_any_file_gives_a_whole_state_or_is_noticed(tmp_path):
    for number in range(len(files_of(*_saved(tmp_path / "probe")))):
        folder, step = _saved(tmp_path / str(number))
        files = files_of(folder, step)  # not always as many: orbax writes in threads
        flip_a_bit(files[number % len(files)])
        found = Checkpoints(folder, report=lambda _: None).restore_latest(state(0))
        same(found, state(int(found["step"])))


def _saved(folder):
    save(folder, [1, 2])
    return folder, 2


def test_values_that_changed_on_the_way_are_noticed(tmp_path):
    """Whatever the file format would let through, the digest does not."""
    save(tmp_path, [1])
    digest = tmp_path / "1" / "digest" / "metadata"
    digest.write_text('{"sha256": "0"}')
    with pytest.raises(DamagedError, match="its digest differs"):
        Checkpoints(tmp_path).restore(1, state(0))


def test_when_all_are_damaged_the_run_is_refused(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, [1, 2])
    for step in (1, 2):
        truncate(largest(folder, step))
    with pytest.raises(errors.InputError, match="Every checkpoint in .* is damaged"):
        Checkpoints(folder, report=lambda _: None).restore_latest(state(0))


def test_where_the_file_system_does_not_answer_nothing_is_called_damaged(tmp_path, monkeypatch):
    checkpoints = save(tmp_path / "checkpoints", [1, 2])

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(checkpoints._manager, "restore", stale)
    with pytest.raises(OSError, match="Stale"):
        checkpoints.restore_latest(state(0))
    monkeypatch.setattr("pathlib.Path.read_text", stale)
    with pytest.raises(OSError, match="Stale"):
        Checkpoints(tmp_path / "checkpoints")
    assert not (tmp_path / "damaged_checkpoints").exists()


def test_where_the_clock_may_have_jumped_it_is_named(tmp_path, monkeypatch):
    checkpoints = save(tmp_path / "checkpoints", [1])

    def late():
        raise TimeoutError("Timed out after 1000000.0 seconds.")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", late)
    with pytest.raises(SaveError, match="is of step 1: .*or the clock jumped .*after 1000000.0"):
        checkpoints.wait()


def test_a_half_written_checkpoint_is_none(tmp_path):
    save(tmp_path, [1])
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    assert Checkpoints(tmp_path).steps == [1]
