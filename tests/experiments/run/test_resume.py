"""A run that is killed, stopped or damaged ends like one that was left alone."""

import os
import shutil
import signal

import ml_collections
import numpy as np
import pytest

from configs import digits
from experiments.run import data_json, training
from tests.support import programs
from triplet_jax import data, errors

PATHS = {
    "resident": {},
    "streamed": {
        "dataset__placement": "stream",
        "dataset__workers": 1,
        "memory__size": 200,
        "memory__start": 50,
        "memory__noise_rate": 0.2,
        "offline__every": 120,
    },
}


@pytest.fixture(scope="module", params=sorted(PATHS))
def undisturbed(request, tmp_path_factory):
    """The fields of a run, and how it ends when it is left alone."""
    if request.param == "resident":
        return {}, programs.outcome(request.getfixturevalue("plain_run"))
    workdir = tmp_path_factory.mktemp(request.param)
    fields = PATHS[request.param]
    done = programs.run("train", f"--workdir={workdir}", **fields)
    assert done.returncode == 0, done.stderr
    return fields, programs.outcome(workdir)


def checkpoints(workdir):
    return [path.name for path in (workdir / "checkpoints").glob("*")]


MOMENTS = {
    "before the first checkpoint": lambda w: programs.last_step(w) >= 10,
    "while the first is written": lambda w: any(name.startswith("60") for name in checkpoints(w)),
    "after a checkpoint": lambda w: programs.last_step(w) >= 90,
    "while another is written": lambda w: any(name.startswith("180") for name in checkpoints(w)),
    "after the last step": lambda w: programs.last_step(w) >= 240,
}


@pytest.mark.parametrize(
    ("undisturbed", "moments"),
    [
        ("resident", ("while another is written",)),
        pytest.param("resident", tuple(MOMENTS), marks=pytest.mark.slow),
        pytest.param("streamed", tuple(MOMENTS), marks=pytest.mark.slow),
    ],
    indirect=["undisturbed"],
    ids=["one-resident", "five-resident", "five-streamed"],
)
def test_a_killed_run_ends_like_an_undisturbed_one(undisturbed, moments, tmp_path):
    fields, expected = undisturbed
    for moment in moments:
        reached = MOMENTS[moment]
        process = programs.start("train", f"--workdir={tmp_path}", **fields)
        programs.wait_until(lambda reached=reached: reached(tmp_path), process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # its workers, too, have let go of the pipe
        assert not (tmp_path / "result.json").exists(), moment
    done = programs.run("train", f"--workdir={tmp_path}", **fields)
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stdout
    assert "damaged" not in done.stdout
    assert programs.outcome(tmp_path) == expected


@pytest.mark.parametrize(
    ("undisturbed", "number"),
    [
        pytest.param("resident", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("streamed", signal.SIGTERM, marks=pytest.mark.slow),
    ],
    indirect=["undisturbed"],
)
def test_a_run_asked_to_stop_saves_and_says_how_to_go_on(number, undisturbed, tmp_path):
    fields, expected = undisturbed
    process = programs.start("train", f"--workdir={tmp_path}", **fields)
    programs.wait_until(lambda: programs.last_step(tmp_path) >= 70, process)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert f"stopped by {number.name} and saved at step" in said
    assert "Run the same command again to go on." in said
    assert "Traceback" not in said
    done = programs.run("train", f"--workdir={tmp_path}", **fields)
    assert done.returncode == 0, done.stderr
    assert f"continuing after step {said.split('saved at step ')[1].split()[0]}" in done.stdout
    # The checkpoint of the stop is one more among those that were kept on the way.
    metrics, steps, digests, scores = programs.outcome(tmp_path)
    assert (metrics, scores) == (expected[0], expected[3])
    assert (steps[-1], digests[-1]) == (expected[1][-1], expected[2][-1])


OUTSIDE = """
import pathlib, sys, time
from experiments import command
at_it = pathlib.Path(sys.argv.pop())
def main():
    at_it.touch()
    time.sleep(600)
command.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_program_that_is_stopped_outside_of_the_loop_says_so(number, tmp_path):
    at_it = tmp_path / "at it"
    process = programs.start_code(OUTSIDE, at_it)
    programs.wait_until(at_it.exists, process)
    process.send_signal(number)
    words = (f"stopped by {number.name}", "Run the same command again")
    programs.refused(process.completed(), *words, status=3)


def test_a_run_that_is_stopped_at_its_last_step_is_not_evaluated(tmp_path, monkeypatch, capsys):
    config = digits.get_config("semi_hard")
    config.update_from_flattened_dict(programs.TINY | {"model.name": "mlp"})

    def to_the_end(state, *_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        return state.replace(step=config.train.steps)

    monkeypatch.setattr(training.loop, "train", to_the_end)
    training.train(ml_collections.FrozenConfigDict(config), tmp_path)
    said = capsys.readouterr().out
    assert "stopped by SIGTERM and saved at step 240 of 240. Run the same command again" in said
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "data.json").exists()


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
    everything = data.digits(data.HeldOut(0.4, 0.0, seed=0))
    others = everything.take(np.delete(np.arange(len(everything)), 7))
    data_json.remember(tmp_path, data_json.content(everything))
    data_json.remember(tmp_path, data_json.content(everything))
    with pytest.raises(errors.InputError, match="a run on other data.* of its train split"):
        data_json.remember(tmp_path, data_json.content(others))


def killed_loader(workdir, fields):
    """A run whose loader is killed says so, and goes on when it is started again."""
    process = programs.start("train", f"--workdir={workdir}", **fields)
    programs.wait_until(lambda: programs.last_step(workdir) >= 90, process)
    programs.kill_loaders(process)
    said = process.communicate()[0]
    assert process.returncode == 3, said
    assert "a process that loads batches has ended" in said
    assert "Traceback" not in said
    done = programs.run("train", f"--workdir={workdir}", **fields)
    assert done.returncode == 0, done.stderr
    assert "continuing after step" in done.stdout


@pytest.mark.slow
def test_a_run_whose_loader_is_killed_says_so_and_goes_on(tmp_path):
    fields = {"dataset__placement": "stream", "dataset__workers": 1, "model__name": "mlp"}
    killed_loader(tmp_path, fields)


@pytest.mark.slow
@pytest.mark.parametrize("undisturbed", ["streamed"], indirect=True)
def test_a_run_whose_loader_is_killed_ends_like_an_undisturbed_one(undisturbed, tmp_path):
    fields, expected = undisturbed
    killed_loader(tmp_path, fields)
    assert programs.outcome(tmp_path) == expected


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(plain_run, tmp_path):
    workdir = shutil.copytree(plain_run, tmp_path / "run")
    (workdir / "result.json").unlink()
    newest = max(int(name) for name in checkpoints(workdir) if name.isdigit())
    folder = workdir / "checkpoints" / str(newest)
    largest = max(folder.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[:100])
    done = programs.run("train", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"The checkpoint of step {newest}" in done.stdout
    assert "going back to the one before" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert programs.outcome(workdir) == programs.outcome(plain_run)


def test_a_finished_run_is_evaluated_again_without_training(plain_run, tmp_path):
    workdir = shutil.copytree(plain_run, tmp_path / "run")
    before = programs.outcome(workdir)
    again = programs.run("train", f"--workdir={workdir}")
    assert "continuing after step 240 of 240" in again.stdout
    assert programs.outcome(workdir) == before


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_by_another_program(plain_run, tmp_path):
    workdir = shutil.copytree(plain_run, tmp_path / "run")
    before = programs.outcome(workdir)
    evaluated = programs.run("evaluate", f"--workdir={workdir}")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "MAP@R" in evaluated.stdout
    assert programs.outcome(workdir) == before
