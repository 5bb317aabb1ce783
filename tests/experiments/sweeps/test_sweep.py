"""Sweeps as a person runs them: engines agree, nothing is lost, and the report opens."""

import concurrent.futures
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import ml_collections
import numpy as np
import pandas as pd
import pytest

from configs import base, digits
from configs.sweeps import base as sweeps
from configs.sweeps import contrastive, offline, schedules
from experiments.run import lock
from experiments.sweeps import executors, outcome, plan, report_page, slurm
from experiments.sweeps.board import Board
from tests.support import browser, programs
from triplet_jax import errors
from triplet_jax.runs import stopwatch

SMALL = {
    "model.name": "mlp",
    "model.width": 16,
    "model.dim": 8,
    "train.steps": 60,
    "evaluate.every": 20,
    "evaluate.episodes": 20,
    "log.telemetry_every": 20,
    "batch.per_class": 6,
}
ARMS = """
    sweep.arms = (
        ("semi_hard", {}),
        ("margin", {"loss.margin": 0.5, "optimizer.learning_rate": 3e-3}),
        ("curriculum", {
            "mining.miner": "quantile",
            "schedules.hardness": {"field": "mining.knobs.hardness", "start": 0.2, "a": 0.5},
        }),
    )
"""


def config_file(folder, arms=ARMS, more=""):
    """A sweep's config, as a user writes one."""
    path = folder / "small.py"
    fields = "\n".join(f"    run.{name} = {value!r}" for name, value in SMALL.items())
    path.write_text(
        "from configs import digits\nfrom configs.sweeps import base\n\n\n"
        f"def get_config():\n    run = digits.get_config()\n{fields}\n"
        f"    sweep = base.get_config(run)\n    sweep.claim = 'Any arm is better'\n"
        f"    sweep.reference = 'semi_hard'\n    sweep.seeds = (0, 1)\n{arms}{more}"
        "    return sweep\n"
    )
    return path


def run(path, workdir, *flags):
    return programs.run("sweep", f"--config={path}", f"--workdir={workdir}", *flags)


@pytest.fixture(scope="module")
def vectorised(tmp_path_factory):
    """A finished sweep by the default engine."""
    folder = tmp_path_factory.mktemp("sweep")
    noise = """
    sweep.settings = (("clean", {}), ("noisy", {"dataset.label_noise": 0.3}))
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.best_of = ("margin", "curriculum")
"""
    path = config_file(folder, more=noise)
    done = run(path, folder / "out")
    assert done.returncode == 0, done.stderr
    return path, folder / "out", done.stdout


def scores(workdir):
    found = {}
    for path in sorted(workdir.glob("runs/**/result.json")):
        rows = [
            json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()
        ]
        result = json.loads(path.read_text())["embedding"]["retrieval"]["map_at_r"]
        found[str(path.parent.relative_to(workdir))] = (result, rows)
    return found


def assert_same_runs(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, (score, rows) in ours.items():
        other, other_rows = theirs[name]
        assert score == pytest.approx(other, abs=tolerance), name
        assert [row.keys() for row in rows] == [row.keys() for row in other_rows], name
        first, other_first = rows[0], other_rows[0]
        for key, value in first.items():
            assert value == pytest.approx(other_first[key], rel=1e-3, abs=1e-4), (name, key)


def test_a_sweep_ends_with_a_table_and_files(vectorised):
    _, workdir, printed = vectorised
    assert "12 runs: 3 arms x 2 settings x 2 seeds" in printed
    assert str(workdir / "report.html") in printed
    summary = pd.read_csv(workdir / "summary.csv", keep_default_na=False, na_values=[""])
    assert summary.columns[0] == "arm"
    assert len(summary) == 6
    assert (summary.runs == 2).all()
    for row in summary.to_dict("records"):
        of_arm = [
            json.loads(path.read_text())["embedding"]["retrieval"]["map_at_r"]
            for path in workdir.glob(f"runs/{row['setting']}/{row['arm']}/*/result.json")
        ]
        assert row["map_at_r"] == pytest.approx(np.mean(of_arm))
        cells = f"| {row['arm']} | {row['map_at_r']:.3f} ± "
        assert cells in (workdir / "summary.md").read_text()


def test_runs_of_a_sweep_are_runs(vectorised):
    """Each has the files of a run, and `experiments.evaluate` finds the same numbers."""
    _, workdir, _ = vectorised
    folder = workdir / "runs" / "noisy" / "curriculum" / "seed1"
    files = {path.name for path in folder.iterdir()}
    expected = {"config.json", "metrics.jsonl", "telemetry.jsonl", "result.json", "embeddings.npz"}
    assert expected | {"label_noise.npz", "checkpoints"} <= files
    with np.load(folder / "label_noise.npz") as noise:
        np.testing.assert_array_equal(noise["wrong"], noise["given"] != noise["true"])
        assert noise["wrong"].mean() == pytest.approx(0.3, abs=0.02)
    before = json.loads((folder / "result.json").read_text())["embedding"]
    again = programs.run("evaluate", f"--workdir={folder}")
    assert again.returncode == 0, again.stderr
    after = json.loads((folder / "result.json").read_text())["embedding"]
    assert after["retrieval"] == pytest.approx(before["retrieval"], abs=1e-6)


def test_seeds_are_paired(vectorised):
    """Arms that differ only after the first step have the same first batch and weights."""
    _, workdir, _ = vectorised
    found = scores(workdir)
    for setting in ("clean", "noisy"):
        for seed in (0, 1):
            semi_hard, curriculum = (
                found[f"runs/{setting}/{arm}/seed{seed}"][1][0] for arm in ("margin", "curriculum")
            )
            assert semi_hard["num_positive_pairs"] == curriculum["num_positive_pairs"]
    assert found["runs/clean/margin/seed0"][1] != found["runs/clean/margin/seed1"][1]


@pytest.mark.parametrize("engine", ["here", pytest.param("processes", marks=pytest.mark.slow)])
def test_engines_agree(vectorised, tmp_path, engine):
    """Each run together with others is, within float error, the run alone."""
    _, workdir, _ = vectorised
    # In processes only the curriculum, as each starts jax anew.
    leave_out = "    sweep.arms = sweep.arms[2:]\n    sweep.reference = 'curriculum'\n"
    more = "    sweep.settings = (('clean', {}),)\n" + (leave_out if engine == "processes" else "")
    path = config_file(tmp_path, more=more)
    done = run(path, tmp_path / "out", f"--config.engine={engine}", "--config.seeds=(0,)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    ours, theirs = scores(tmp_path / "out"), scores(workdir)
    assert len(ours) == (3 if engine == "here" else 1)
    assert_same_runs(ours, {name: theirs[name] for name in ours}, tolerance=0.02)


@pytest.mark.slow
def test_runs_with_a_memory_and_with_proxies_train_together_as_they_do_alone(tmp_path):
    arms = """
    sweep.reference = "memory"
    sweep.arms = (
        ("memory", {"memory.size": 100, "memory.start": 20}),
        ("proxies", {
            "loss.name": "arcface", "loss.metric": "cosine", "loss.proxies": "references",
        }),
    )
"""
    path = config_file(tmp_path, arms=arms)
    together = run(path, tmp_path / "together")
    assert together.returncode == 0, together.stderr
    alone = run(path, tmp_path / "alone", "--config.engine=here", "--config.seeds=(1,)")
    assert alone.returncode == 0, alone.stderr
    ours, theirs = scores(tmp_path / "together"), scores(tmp_path / "alone")
    assert (len(ours), len(theirs)) == (4, 2)
    assert_same_runs({name: ours[name] for name in theirs}, theirs, tolerance=0.02)
    last = ours["runs/memory/seed0"][1][-2]
    assert last["memory/num_valid"] > 0


def test_a_killed_sweep_goes_on_and_ends_the_same(vectorised, tmp_path):
    path, workdir, _ = vectorised
    out = tmp_path / "out"
    process = programs.start("sweep", f"--config={path}", f"--workdir={out}")

    def second_group_was_saved():
        return len({path.parent for path in out.glob("groups/*/checkpoints/[0-9]*")}) == 2

    programs.wait_until(second_group_was_saved, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {p: p.stat().st_mtime_ns for p in out.glob("runs/**/result.json")}
    assert 0 < len(finished) < 12
    done = run(path, out)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    ours, theirs = (pd.read_csv(folder / "summary.csv") for folder in (out, workdir))
    pd.testing.assert_frame_equal(
        ours.drop(columns="seconds"), theirs.drop(columns="seconds"), check_exact=True
    )


@pytest.mark.slow
def test_a_sweep_that_is_asked_to_stop_saves_between_evaluations(tmp_path):
    arms = """
    sweep.arms = (("semi_hard", {}),)
    run.train.steps = 400
    run.evaluate.every = 400
"""
    path = config_file(tmp_path, arms=arms)
    undisturbed = run(path, tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    out = tmp_path / "stopped"
    process = programs.start("sweep", f"--config={path}", f"--workdir={out}")
    one = out / "runs" / "semi_hard" / "seed0"
    programs.wait_until(lambda: programs.last_step(one) >= 20, process)
    process.send_signal(signal.SIGTERM)
    assert "2 runs to do. Run the same command again" in process.communicate()[0]
    saved = [int(path.name) for path in out.glob("groups/*/checkpoints/[0-9]*")]
    assert len(saved) == 1
    assert 20 <= saved[0] < 400
    done = run(path, out)
    assert done.returncode == 0, done.stderr
    assert_same_runs(scores(out), scores(tmp_path / "undisturbed"), tolerance=0)


def test_a_run_that_breaks_is_kept_and_stops_no_other(tmp_path):
    arms = """
    sweep.arms = (
        ("semi_hard", {}),
        ("broken", {"optimizer.learning_rate": 1e30}),
    )
    sweep.run.optimizer.name = "sgd"
    sweep.run.model.normalize = False
"""
    path = config_file(tmp_path, arms)
    done = run(path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("arm")
    assert summary.failed.to_dict() == {"semi_hard": 0, "broken": 2}
    assert summary.runs["semi_hard"] == 2
    error = (tmp_path / "out" / "runs" / "broken" / "seed0" / "error.txt").read_text()
    assert "is not finite" in error
    again = run(path, tmp_path / "out")
    assert "0 to do" in again.stdout
    retried = run(path, tmp_path / "out", "--retry")
    assert retried.returncode == 0, retried.stderr
    assert "2 to do" in retried.stdout
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("arm")
    assert summary.failed["broken"] == 2


def a_run(tmp_path):
    """One of a sweep, that is not done."""
    run = planned(tmp_path)[0]
    run.folder.mkdir(parents=True)
    return run


def test_a_run_that_was_evaluated_before_its_end_is_not_done(tmp_path):
    run = a_run(tmp_path)
    (run.folder / "metrics.jsonl").write_text('{"step": 20}\n')
    for trained, state in ((20, "started"), (60, "done")):
        (run.folder / "result.json").write_text(json.dumps({"trained_steps": trained}))
        assert run.state == state
    (run.folder / "result.json").write_text("{}")  # of an earlier version
    assert run.state == "done"


def test_a_terminal_shows_all_runs_in_one_table(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    done, failed, started, *waiting = planned(tmp_path)
    with Board([done, failed, started, *waiting], "map_at_r") as board:
        for run in (done, started):
            run.folder.mkdir(parents=True)
            (run.folder / "metrics.jsonl").write_text('{"step": 20}\n')
        result = {"trained_steps": 60, "embedding": {"retrieval": {"map_at_r": 0.123456}}}
        (done.folder / "result.json").write_text(json.dumps(result))
        failed.fail("the loss is not finite")
        board.show()
    last = terminal.getvalue().rpartition("setting")[2]  # drawn anew, over the one before
    for cell in ("0.1235", "failed: the loss", "20/60", done.arm, f"2/{len(waiting) + 3} runs"):
        assert cell in last
    assert last.count("waiting") == len(waiting)
    assert "ETA" in last


@pytest.mark.parametrize("engine", ["here", "vectorised"])
def test_a_run_that_another_process_trains_is_left_to_it(engine, tmp_path):
    run = a_run(tmp_path)
    with (
        lock.claimed(run.folder),
        pytest.raises(errors.InputError, match=r"is working in .*seed0"),
    ):
        executors.ENGINES[engine]([run], None, lambda: None)
    assert run.state == "waiting"


@pytest.mark.parametrize(
    ("ending", "words"),
    [("echo error: the disk is full; exit 3", "the disk is full"), ("kill -9 $$", "SIGKILL")],
)
def test_a_process_that_lacks_something_has_not_failed(
    ending, words, tmp_path, monkeypatch, capsys
):
    run = a_run(tmp_path)

    def start(run):
        with (run.folder / "log.txt").open("w") as log:
            return subprocess.Popen(["sh", "-c", ending], stdout=log)

    monkeypatch.setattr(executors, "_start", start)
    executors.processes([run], ml_collections.ConfigDict({"processes": 1}), lambda: None)
    assert words in capsys.readouterr().out
    assert run.state == "waiting"


def test_a_run_that_is_tried_again_is_forgotten_by_the_cluster(tmp_path):
    run = a_run(tmp_path)
    (tmp_path / "slurm").mkdir()
    of_another = {"job": "7_1", "step": 0, "tries": 1}
    jobs = {run.name: {"job": "7_0", "step": 0, "tries": 3}, "another": of_another}
    (tmp_path / "slurm" / "jobs.json").write_text(json.dumps(jobs))
    assert not slurm.Book(tmp_path).may_try(run)
    assert run.state == "failed"
    slurm.Book(tmp_path).forget([run])
    assert slurm.Book(tmp_path).may_try(run)
    assert slurm.Book(tmp_path).numbers() == ["7_1"]


def test_a_launcher_that_looks_on_leaves_when_its_jobs_are_cancelled(tmp_path, monkeypatch):
    run, ended = a_run(tmp_path), []
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "jobs.json").write_text(
        json.dumps({run.name: {"job": "7_0", "step": 0, "tries": 1}})
    )
    monkeypatch.setattr(slurm, "_queue", lambda: {"7_0"} - set(ended))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: ended.extend(command[1:]))
    looks = threading.Event()

    def look_on():
        with lock.claimed(tmp_path):
            slurm.jobs([run], ml_collections.ConfigDict({"slurm": {}}), looks.set)
            assert not ended  # so that it cannot give the run another job

    monkeypatch.setattr(slurm.signals.Stop, "listening", contextlib.nullcontext)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        launcher = pool.submit(look_on)
        assert looks.wait(60)
        assert slurm.cancel(tmp_path) == 1
        launcher.result(60)
    assert ended == ["7_0"]
    assert sorted(path.name for path in (tmp_path / "slurm").iterdir()) == ["jobs.json"]


@pytest.mark.parametrize("task", ["0", "1"])
def test_every_task_of_a_job_waits_for_what_an_earlier_one_left(task, tmp_path, monkeypatch):
    holder, started_while_held = contextlib.ExitStack(), []
    holder.enter_context(lock.claimed(tmp_path))

    def start(folder, log):
        started_while_held.append(lock.is_claimed(folder))
        return subprocess.Popen(["true"])

    monkeypatch.setenv("SLURM_PROCID", task)
    monkeypatch.setattr(slurm.child, "start", start)
    monkeypatch.setattr(slurm.time, "sleep", lambda _: holder.close())
    with holder:
        slurm.Job(tmp_path)()
    assert started_while_held == [False]


def test_a_job_is_preempted_at_any_moment(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    job, sent, kill = slurm.Job(tmp_path), [], os.kill

    def record(pid, number):
        sent.append((pid, number))
        if pid:  # 0 is all of this test
            kill(pid, number)

    monkeypatch.setattr(slurm.os, "kill", record)
    assert job.checkpoint()  # while it waits for the folder
    assert not sent
    job._process = subprocess.Popen(["sleep", "600"])
    assert job.checkpoint()
    assert sent == [(job._process.pid, signal.SIGTERM)]
    assert job._process.wait() == -signal.SIGTERM
    assert job.checkpoint()  # once it has ended
    assert len(sent) == 1


# -- what is refused ---------------------------------------------------------------------


def planned(tmp_path, **fields):
    made = digits.get_config()
    made.update_from_flattened_dict(SMALL | {"batch.per_class": 8})  # tests have 8 devices
    made = sweeps.get_config(made)
    made.arms = (("one", {}), ("two", {"loss.margin": 0.5}))
    made.reference = "one"
    for name, value in fields.items():
        made[name] = value
    return plan.plan(made, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": (("one", {}), ("one", {"loss.margin": 0.1}))}, "'one' is there twice"),
        ({"arms": (("one", {"loss.margn": 0.1}),)}, "Did you mean 'loss.margin'"),
        ({"arms": (("one", {"loss.margin": "wide"}),)}, "arm 'one'"),
        ({"arms": (("one", {"loss.margin": -1.0}),)}, "arm 'one'.*loss.margin=-1.0 must be"),
        ({"arms": (("a/b", {}),), "reference": "a/b"}, "'a/b' is to name a folder"),
        ({"arms": ()}, "arms is empty"),
        ({"reference": "on"}, "reference='on' is not known"),
        ({"best_of": ("three",)}, "best_of='three'"),
        ({"seeds": (0, 0)}, "seeds="),
        ({"seeds": ()}, "seeds="),
        ({"metric": "map"}, "metric='map' is not known"),
        ({"seeds": (-1, 0)}, "seeds="),
        ({"arms": (("one", {"dataset.placement": "stream"}),)}, "does not obey dataset.placement"),
        ({"engine": "slurmm"}, "engine='slurmm' is not known"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(tmp_path, fields, message):
    with pytest.raises(errors.InputError, match=message):
        planned(tmp_path, **fields)


@pytest.mark.parametrize("config", [contrastive, offline, schedules])
def test_a_misspelt_data_set_of_a_sweep_is_refused(config):
    with pytest.raises(ValueError, match="'omniglt' is not known; .* digits, omniglot"):
        config.get_config("omniglt")


def test_of_several_fields_the_unknown_one_is_named(tmp_path):
    path = config_file(tmp_path)
    for fields, name in (
        (("engine=here", "run.train.stepz=5"), "train.stepz"),
        (("run.train.steps=60", "enginee=here"), "enginee"),
        (("run.schedules.none.a=0.5",), "schedules.none.a"),
    ):
        done = run(path, tmp_path / "out", *(f"--config.{field}" for field in fields))
        programs.refused(done, f"config field='{name}' is not known")


def test_arms_do_not_leak_into_each_other(tmp_path):
    runs = planned(tmp_path)
    margins = {run.arm: run.config.loss.margin for run in runs}
    assert margins == {"one": 0.3, "two": 0.5}
    assert base.get_config().loss.margin == 0.1


def test_a_folder_of_another_sweep_is_refused_and_seeds_may_be_added(vectorised, tmp_path):
    path, workdir, _ = vectorised
    other = run(path, workdir, "--config.run.loss.margin=0.7")
    assert other.returncode == 2
    assert "holds another sweep: run differ" in other.stderr
    assert "Traceback" not in other.stderr


def test_seconds_a_run_are_those_of_all_its_processes(tmp_path):
    old, new = a_run(tmp_path / "old"), a_run(tmp_path / "new")
    for run in (old, new):
        result = {"wall_seconds_of_this_process": 8.0, "runs_trained_together": 4}
        (run.folder / "result.json").write_text(json.dumps(result))
    stopwatch.write(new.folder / "seconds.json", [30.0, 12.5])
    assert (old.seconds(), new.seconds()) == (2.0, 42.5)


def test_a_folder_without_a_sweep_has_no_report(tmp_path):
    done = programs.run("report", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "holds no sweep" in done.stderr


# -- the page ----------------------------------------------------------------------------


def test_the_page_needs_no_network(vectorised):
    _, workdir, _ = vectorised
    text = (workdir / "report.html").read_text()
    outside = text[: text.index("<script>")]
    assert not re.search(r"(src|href)=", outside)
    for part in ("Any arm is better", "Scores", "The best of many", "Collapses", "What differs"):
        assert part in text
    assert "loss.margin = 0.5" in text


def test_text_of_a_run_cannot_become_a_script(vectorised):
    found = outcome.read(vectorised[1])
    evil = "</script><script>alert(1)</script>"
    found.sweep["claim"] = evil
    for table in (found.curves, found.runs, found.summary):
        table["arm"] = table.arm.replace("margin", evil)
    found.sweep["arms"] = [
        [evil if name == "margin" else name, fields] for name, fields in found.sweep["arms"]
    ]
    assert "<script>alert" not in report_page.render(found)


@browser.needed
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs pdftotext to read the print")
def test_a_print_of_the_page_has_the_whole_table(vectorised, tmp_path):
    found = outcome.read(vectorised[1])
    long = "a_curriculum_whose_name_is_as_long_as_people_make_them"
    for table in (found.curves, found.runs, found.summary):
        table["arm"] = table.arm.replace("margin", long)
    found.sweep["reference"] = long
    found.sweep["arms"] = [[long if n == "margin" else n, f] for n, f in found.sweep["arms"]]
    found.summary["seconds"] = 12345.6
    text = browser.printed(report_page.render(found), tmp_path)
    assert text.count("12345.6") == len(found.summary)
    assert re.search("seconds a *run|seconds", text)


@browser.needed
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_the_page_draws_every_plot_in_a_browser(vectorised, tmp_path, scheme):
    _, workdir, _ = vectorised
    text = (workdir / "report.html").read_text()
    plots = len(re.findall(r'class="plot"', text))
    assert plots >= 2 * 7
    script = """
  const drawn = [...document.querySelectorAll(".plot")].filter(
    p => p.querySelector("svg.main-svg") && p.getBoundingClientRect().height > 100).length;
  const box = document.querySelector("input[data-arm='margin']");
  box.click();
  const hidden = [...document.querySelectorAll("tr[data-row-arm='margin']")].every(r => r.hidden);
  const ink = getComputedStyle(document.body).color;
  return {drawn, hidden, ink};"""
    found = browser.look(text, script, tmp_path, dark=scheme == "dark")
    assert found["drawn"] == plots
    assert found["hidden"]
    assert found["ink"] == ("rgb(232, 232, 232)" if scheme == "dark" else "rgb(27, 27, 27)")
