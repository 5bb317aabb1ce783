"""A run of several processes: the same as of one, and taken up again after what happens to them."""

import json
import shutil
import signal
import socket
import time

import jax
import numpy as np
import PIL.Image
import pytest

from experiments.config import datasets
from experiments.run import config_json, restoring
from tests.support import once, programs
from triplet_jax.devices import processes
from triplet_jax.runs import row_files
from triplet_jax.runs.checkpoint import Checkpoints

# Everything that a state holds: an average, a memory, a number that paces itself; streamed data.
FIELDS = {
    "train__steps": 30,
    "evaluate__every": 15,
    "log__every": 5,
    "model__width": 8,
    "model__norm": "batch",
    "batch__per_class": 4,
    # Small steps, not Adam's: else what rounding changes in a gradient near zero, or in which
    # triplet is picked, has grown to another run by the end. Nor many steps, for the same reason.
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 1e-3,
    "optimizer__average_decay": 0.9,
    # Over those that are active the average jumps where rounding takes one over the margin.
    "loss__average": "valid",
    "memory__size": 80,
    "memory__start": 10,
    "dataset__placement": "stream",
    "dataset__workers": 0,
}
CONFIG = "configs/digits.py:self_paced"


def launch(workdir, devices, code=None, **different):
    fields = FIELDS | different
    arguments = programs.arguments("train", f"--workdir={workdir}", config=CONFIG, **fields)
    return programs.start_together(devices, arguments, code=code)


def ended(run):
    """What each process said, once all have ended well."""
    said = [process.communicate(timeout=programs.TIMEOUT) for process in run]
    assert [process.returncode for process in run] == [0] * len(run), said
    return [out for out, _ in said]


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """A run of one process with four devices."""
    return once.made_once(tmp_path_factory, "alone", lambda folder: ended(launch(folder, (4,))))


@pytest.fixture(scope="session")
def together(tmp_path_factory):
    """A run of two processes with two devices each, and what each of them said."""

    def train(folder):
        folder.mkdir()
        said = ended(launch(folder / "run", (2, 2)))
        (folder / "said.json").write_text(json.dumps(said))

    folder = once.made_once(tmp_path_factory, "together", train)
    return folder / "run", json.loads((folder / "said.json").read_text())


def last_state(workdir):
    """What the last checkpoint holds."""
    config = config_json.read(workdir)
    run = restoring.load(workdir, config, datasets.dataset(config).input_shape)
    return run.checkpoints.restore_last(run.like)


def assert_alike(a, b):
    """Two runs have the same metrics and the same last state but for rounding."""
    steps, states = zip(*[last_state(workdir) for workdir in (a, b)], strict=True)
    assert steps[0] == steps[1]
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    # The momentum holds single gradients, which jump where rounding takes a unit or a triplet over
    # 0. All else moves by a thousandth of that.
    for one, other in zip(*(jax.tree.leaves(state.opt_state) for state in states), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 + 0.1 * np.abs(other).max())
    rest = [jax.tree.leaves(state.replace(opt_state=())) for state in states]
    for one, other in zip(*rest, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 + 2e-4 * np.abs(other).max())
    rows = [row_files.read_rows(workdir / "metrics.jsonl") for workdir in (a, b)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for one, other in zip(*rows, strict=True):
        jumping = {name for name in one if "active" in name} | {"grad_norm"} & one.keys()
        for names, within in ((jumping, 0.03), (one.keys() - jumping, 2e-3)):
            expected = {name: other[name] for name in names}
            assert {name: one[name] for name in names} == pytest.approx(
                expected, rel=within, abs=within
            )
    results = [json.loads((workdir / "result.json").read_text()) for workdir in (a, b)]
    scores = [result["embedding"]["retrieval"] for result in results]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    embeddings = [np.load(workdir / "embeddings.npz")["embeddings"] for workdir in (a, b)]
    np.testing.assert_allclose(*embeddings, atol=5e-3)


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one_of_four(alone, together):
    workdir, (first, second) = together
    assert "4 x cpu in 2 processes" in first
    assert not second  # only the first process prints
    assert_alike(alone, workdir)


@pytest.mark.slow
def test_four_processes_of_one_device_train_as_one_of_four(alone, tmp_path):
    ended(launch(tmp_path, (1, 1, 1, 1)))
    assert_alike(alone, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(4,), (1, 1, 1, 1)])
def test_a_run_goes_on_with_another_number_of_processes(devices, alone, together, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(together[0] if devices == (4,) else alone, workdir)
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "30")
    said, *_ = ended(launch(workdir, devices))
    assert "continuing after step 15 of 30" in said
    assert_alike(alone, workdir)


@pytest.mark.slow
def test_two_processes_evaluate_and_embed_together(together, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(together[0], workdir)
    before = json.loads((workdir / "result.json").read_text())
    (workdir / "result.json").unlink()
    first, second = ended(programs.start_together((2, 2), [f"--workdir={workdir}"], "evaluate"))
    assert "written to" in first
    assert not second
    result = json.loads((workdir / "result.json").read_text())
    for name in ("embedding", "raw_pixels", "protocol", "device"):
        assert result[name] == before[name]

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(70):  # more than are embedded at a time
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    flags = [f"--workdir={workdir}", f"--images={folder}"]
    outputs = [tmp_path / name for name in ("alone.npz", "together.npz")]
    for devices, output in zip(((4,), (2, 2)), outputs, strict=True):
        _, *others = ended(
            programs.start_together(devices, [*flags, f"--output={output}"], "embed")
        )
        assert not any(others)
    alone, both = (np.load(output) for output in outputs)
    np.testing.assert_allclose(alone["embeddings"], both["embeddings"], atol=1e-6)
    np.testing.assert_array_equal(alone["paths"], both["paths"])


@pytest.mark.slow
def test_all_stop_before_the_same_step_when_one_is_asked_to(together, tmp_path):
    run = launch(tmp_path, (2, 2))
    programs.wait_until(lambda: programs.last_step(tmp_path) >= 5, run[0])
    run[1].send_signal(signal.SIGUSR1)
    said, _ = ended(run)
    assert "and saved at step" in said
    assert "Run the same command again to go on." in said
    (said, _) = ended(launch(tmp_path, (2, 2)))
    assert "continuing after step" in said
    assert programs.outcome(tmp_path)[0] == programs.outcome(together[0])[0]
    last = [
        Checkpoints(w / "checkpoints", read_only=True).steps[-1] for w in (tmp_path, together[0])
    ]
    digests = [
        (w / "checkpoints" / str(step) / "digest" / "metadata").read_text()
        for w, step in zip((tmp_path, together[0]), last, strict=True)
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_where_one_process_is_killed_the_other_says_so(which, together, tmp_path):
    run = launch(tmp_path, (2, 2))
    programs.wait_until(lambda: programs.last_step(tmp_path) >= 15, run[0])
    run[which].send_signal(signal.SIGKILL)
    other = run[1 - which]
    said, complaint = other.communicate(timeout=programs.TIMEOUT)
    assert other.returncode == 3, (said, complaint)
    assert "Traceback" not in complaint
    assert "another process of this run has ended" in complaint
    assert "Run the same command again" in complaint
    ended(launch(tmp_path, (2, 2)))
    assert programs.outcome(tmp_path) == programs.outcome(together[0])


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for(together, tmp_path):
    run = launch(tmp_path, (2, 2))
    programs.wait_until(lambda: programs.last_step(tmp_path) >= 5, run[0])
    run[1].send_signal(signal.SIGSTOP)
    time.sleep(40)  # gloo gives some collectives up after thirty
    run[1].send_signal(signal.SIGCONT)
    ended(run)
    assert programs.outcome(tmp_path) == programs.outcome(together[0])


LATE = """
import pathlib, time
from experiments import command, train
join = command.start_processes

def join_late():
    join()
    if command.PROCESS.value:
        pathlib.Path(command.WORKDIR.value, "joined").touch()
        time.sleep(40)

command.start_processes = join_late
command.run(train.main, of_several=True)
"""


@pytest.mark.slow
def test_a_process_that_is_late_from_the_start_is_waited_for(together, tmp_path):
    ended(launch(tmp_path, (2, 2), code=LATE))
    assert programs.outcome(tmp_path) == programs.outcome(together[0])


@pytest.mark.slow
def test_one_of_several_that_is_stopped_before_the_first_step_says_so(tmp_path):
    run = launch(tmp_path, (2, 2), code=LATE)
    programs.wait_until((tmp_path / "joined").exists, run[1])
    run[1].send_signal(signal.SIGTERM)
    ended_in_words(run[1], "stopped by SIGTERM")
    ended_in_words(run[0], "another process of this run has ended, or cannot be reached")


@pytest.mark.slow
def test_what_the_first_refuses_all_refuse(together):
    run = launch(together[0], (2, 2), loss__margin=0.7)
    said = [process.communicate(timeout=programs.TIMEOUT)[1] for process in run]
    assert [process.returncode for process in run] == [2, 2], said
    assert all("another config" in complaint for complaint in said)
    assert not any("Traceback" in complaint for complaint in said)


@pytest.mark.slow
def test_processes_of_unlike_numbers_of_devices_are_refused(tmp_path):
    run = launch(tmp_path, (2, 1))
    said = [process.communicate(timeout=programs.TIMEOUT)[1] for process in run]
    words = {
        2: "have [2, 1] devices. All must have the same number",
        3: "another process of this run has ended",  # where it did so before this one looked
    }
    status = [process.returncode for process in run]
    assert 2 in status
    for number, complaint in zip(status, said, strict=True):
        assert words[number] in complaint, (status, said)
        assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes=2"], ["--coordinator=''", "together or not at all"]),
        (["--coordinator=x:1", "--processes=2", "--process=2"], ["--process=2", "below"]),
        (["--coordinator=auto", "--processes=2", "--process=1"], ["'auto'", "leave out"]),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, words, tmp_path):
    programs.refused(programs.run("train", f"--workdir={tmp_path}", *flags), *words)


ALONE = """
from experiments import command, train
from triplet_jax.devices import processes
processes.JOIN_SECONDS = {seconds}
command.run(train.main, of_several=True)
"""


def alone_of_two(which, seconds, workdir):
    """One process of a run whose other never comes, and the port of the first."""
    port = programs.free_port()
    of_two = (f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={which}")
    given = programs.arguments("train", f"--workdir={workdir}", *of_two)
    return programs.start_code(ALONE.format(seconds=seconds), *given), port


def ended_in_words(process, words):
    programs.refused(process.completed(), words, "Run the same command again", status=3)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_where_another_process_never_comes_it_is_said(which, tmp_path):
    process, _ = alone_of_two(which, 1, tmp_path)
    ended_in_words(process, "another process of this run has ended, or cannot be reached")


def test_a_process_that_waits_for_others_can_be_stopped(tmp_path):
    process, port = alone_of_two(0, 300, tmp_path)

    def waits():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    programs.wait_until(waits, process)
    process.send_signal(signal.SIGTERM)
    ended_in_words(process, "stopped by SIGTERM")


def test_one_process_has_all_and_hears_itself():
    rows = np.arange(5)
    assert processes.own_share(rows)[1] == 0
    assert processes.first_does(lambda: 3) == 3
    assert processes.first_reads(lambda: None, like=rows) is None
    np.testing.assert_array_equal(processes.all_shares(rows, 5), rows)
