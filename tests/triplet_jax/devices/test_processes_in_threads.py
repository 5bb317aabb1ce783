"""What processes tell one another, and how each begins; threads or this one stand for several."""

import concurrent.futures
import os
import threading
import types

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from triplet_jax import errors
from triplet_jax.devices import processes


@pytest.fixture
def every(monkeypatch):
    """Runs a task in each of so many processes; what each of them gives or raises."""
    here = threading.local()

    def run(count, task):
        barrier, sent = threading.Barrier(count, timeout=20), [None] * count

        def exchanged(x):
            sent[here.number] = x
            barrier.wait()
            found = list(sent)
            barrier.wait()
            assert len({(part.shape, part.dtype) for part in found}) == 1  # as jax demands
            return found

        def one(number):
            here.number = number
            try:
                return task()
            except Exception as error:
                return error

        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(jax, "process_index", lambda: here.number)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda x: exchanged(x)[0])
        monkeypatch.setattr(
            multihost_utils,
            "process_allgather",
            lambda x, tiled: np.concatenate(exchanged(x)) if tiled else np.stack(exchanged(x)),
        )
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    return run


def test_all_get_the_arrays_of_the_first_as_they_are(every):
    def task():
        mine = jax.process_index() + 1
        tree = {"zero": np.float32([-0.0, mine]), "step": np.int64(2**40 * mine), "none": None}
        return processes.from_first(tree | {"flags": np.array([True, mine == 2])})

    for found in every(2, task):
        assert np.signbit(found["zero"][0]) and found["zero"][1] == 1
        assert (found["step"], found["step"].dtype, found["step"].shape) == (2**40, np.int64, ())
        assert found["flags"].tolist() == [True, False]
        found["zero"][:] = 5  # which may be written to
    assert every(2, lambda: processes.from_first({})) == [{}, {}]


@pytest.mark.parametrize(
    ("raised", "heard"),
    [
        (errors.InputError("margin=-1 is below 0"), errors.InputError),
        (errors.LostError("run\udcff is gone"), errors.LostError),
        (OSError(28, "No space left", "run"), errors.LostError),
    ],
)
def test_what_the_first_cannot_do_all_say(raised, heard, every):
    def task():
        def refuse():
            raise raised

        return processes.first_does(refuse)

    first, *others = every(3, task)
    assert first is raised
    for other in others:
        assert type(other) is heard
        assert str(other) == f"process 0 says: {raised}".replace("\udcff", "\\udcff")


def test_only_the_first_does_it(every):
    done = []
    assert every(3, lambda: processes.first_does(lambda: done.append(1) or "done")) == [
        "done",
        None,
        None,
    ]
    assert done == [1]


def test_what_the_first_reads_all_have_or_none(every):
    like = {"w": jax.ShapeDtypeStruct((2,), np.float32)}
    stored = {"w": np.float32([1, 2])}
    for found in every(2, lambda: processes.first_reads(lambda: stored, like=like)):
        assert found["w"].tolist() == [1, 2]
    assert every(2, lambda: processes.first_reads(lambda: None, like=like)) == [None, None]


def test_shares_are_of_one_size_and_join_to_all_rows(every):
    rows = np.arange(14, dtype=np.float64).reshape(7, 2) / 3

    def task():
        own, first = processes.own_share(rows)
        doubled = {"rows": own * 2, "first": own[:, 0]}
        return own, first, processes.all_shares(doubled, len(rows))

    found = every(3, task)
    assert [first for _, first, _ in found] == [0, 3, 6]
    np.testing.assert_array_equal(found[2][0], [rows[6], [0, 0], [0, 0]])  # zeros fill the last
    for own, _, joined in found:
        assert own.shape == (3, 2)
        assert joined["rows"].dtype == np.float64
        np.testing.assert_array_equal(joined["rows"], rows * 2)
        np.testing.assert_array_equal(joined["first"], rows[:, 0])


@pytest.fixture
def joined(monkeypatch):
    """What jax was asked to join, without doing so."""
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **_: asked.append(a))
    for name in processes.LAUNCHERS.values():
        monkeypatch.delenv(name, raising=False)
    return asked


def test_processes_are_joined_by_address_by_a_launcher_or_by_jax(joined, monkeypatch):
    processes.start()
    assert not joined
    processes.start("one:1", 2, 1)
    processes.start("auto")
    assert joined == [("one:1", 2, 1), ()]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    processes.start()
    assert len(joined) == 2
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    processes.start()
    assert joined[2:] == [()]


@pytest.mark.parametrize(("number", "printed"), [(0, "a line\n"), (1, "")])
def test_only_the_first_prints(number, printed, joined, monkeypatch, capfd):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: number)
    output = os.dup(1)
    try:
        processes.start("one:1", 2, number)
        os.write(1, b"a line\n")
    finally:
        os.dup2(output, 1)
        os.close(output)
    assert capfd.readouterr().out == printed


def devices(*counts):
    """Devices of processes that have so many each."""
    numbers = np.repeat(np.arange(len(counts)), counts).tolist()
    return [types.SimpleNamespace(process_index=number) for number in numbers]


def test_unlike_numbers_of_devices_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: devices(2, 2))
    processes.check_devices()
    monkeypatch.setattr(jax, "devices", lambda: devices(2, 1))
    with pytest.raises(errors.InputError, match=r"have \[2, 1\] devices. All must have the same"):
        processes.check_devices()


def test_processes_meet_over_all_their_devices(monkeypatch):
    sent, seen = [], []
    pmap = jax.pmap
    monkeypatch.setattr(jax, "pmap", lambda *given: lambda x: seen.append(pmap(*given)(x)))
    monkeypatch.setattr(processes, "from_first", sent.append)
    processes.meet()
    assert not sent and not seen
    monkeypatch.setattr(processes, "several", lambda: True)
    processes.meet()
    assert len(sent) == 1
    assert seen[0].tolist() == [jax.device_count()] * jax.device_count()
