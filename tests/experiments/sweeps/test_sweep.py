"""Sweeps as a person runs them: engines agree, and nothing is lost."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from tests.support import programs, small_sweeps


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


def test_runs_of_a_sweep_are_runs(vectorised, tmp_path):
    """Each has the files of a run, and `experiments.evaluate` finds the same numbers."""
    _, workdir, _ = vectorised
    folder = shutil.copytree(workdir / "runs" / "noisy" / "curriculum" / "seed1", tmp_path / "run")
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
    found = small_sweeps.scores(workdir)
    for setting in ("clean", "noisy"):
        for seed in (0, 1):
            semi_hard, curriculum = (
                found[f"runs/{setting}/{arm}/seed{seed}"][1][0] for arm in ("margin", "curriculum")
            )
            assert semi_hard["num_positive_pairs"] == curriculum["num_positive_pairs"]
    assert found["runs/clean/margin/seed0"][1] != found["runs/clean/margin/seed1"][1]


@pytest.mark.parametrize(
    ("engine", "arms"),
    [
        ("here", 1),
        pytest.param("here", 2, marks=pytest.mark.slow),  # margin is semi_hard with other numbers
        pytest.param("here", 3, marks=pytest.mark.slow),
        pytest.param("processes", 1, marks=pytest.mark.slow),
    ],
)
def test_engines_agree(vectorised, tmp_path, engine, arms):
    """Each run together with others is, within float error, the run alone."""
    _, workdir, _ = vectorised
    more = "    sweep.settings = (('clean', {}),)\n    sweep.reference = 'curriculum'\n"
    more += f"    sweep.arms = sweep.arms[-{arms}:]\n"
    path = small_sweeps.config_file(tmp_path, more=more)
    done = small_sweeps.finished(
        path, tmp_path / "out", f"--config.engine={engine}", "--config.seeds=(0,)"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    ours, theirs = small_sweeps.scores(tmp_path / "out"), small_sweeps.scores(workdir)
    assert len(ours) == arms
    small_sweeps.assert_same_runs(ours, {name: theirs[name] for name in ours}, tolerance=0.02)


@pytest.mark.slow
def test_runs_with_a_memory_and_with_proxies_train_together_as_they_do_alone(tmp_path):
    arms = """
    sweep.reference = "memory"
    sweep.arms = (
        ("memory", {"memory.size": 100, "memory.start": 20, "memory.noise_rate": 0.1}),
        ("strict", {"memory.size": 100, "memory.start": 20, "memory.noise_rate": 0.3}),
        ("proxies", {
            "loss.name": "arcface", "loss.metric": "cosine", "loss.proxies": "references",
            "optimizer.proxies_rate": 10.0,
        }),
        ("faster", {
            "loss.name": "arcface", "loss.metric": "cosine", "loss.proxies": "references",
            "optimizer.proxies_rate": 30.0,
        }),
    )
"""
    path = small_sweeps.config_file(tmp_path, arms=arms)
    together = small_sweeps.finished(path, tmp_path / "together")
    assert together.returncode == 0, together.stderr
    alone = small_sweeps.finished(
        path, tmp_path / "alone", "--config.engine=here", "--config.seeds=(1,)"
    )
    assert alone.returncode == 0, alone.stderr
    ours, theirs = (
        small_sweeps.scores(tmp_path / "together"),
        small_sweeps.scores(tmp_path / "alone"),
    )
    assert (len(ours), len(theirs)) == (8, 4)
    small_sweeps.assert_same_runs({name: ours[name] for name in theirs}, theirs, tolerance=0.02)
    last = ours["runs/memory/seed0"][1][-2]
    assert last["memory/num_valid"] > 0
    for arm in ("strict", "faster"):
        result = json.loads((tmp_path / f"together/runs/{arm}/seed0/result.json").read_text())
        assert result["runs_trained_together"] == 4


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_the_same(vectorised, tmp_path):
    path, workdir, _ = vectorised
    out = tmp_path / "out"
    process = programs.start("sweep", f"--config={path}", f"--workdir={out}")

    programs.wait_until(lambda: list(out.glob("runs/*/*/*/result.json")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*/*/result.json")}
    assert 0 < len(finished) < 12
    done = small_sweeps.finished(path, out)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    ours, theirs = (pd.read_csv(folder / "summary.csv") for folder in (out, workdir))
    pd.testing.assert_frame_equal(
        ours.drop(columns="seconds"), theirs.drop(columns="seconds"), check_exact=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("dims", [(8,), (8, 4)], ids=["one_group", "two_groups"])
def test_a_sweep_that_is_asked_to_stop_saves_between_evaluations(tmp_path, dims):
    if len(dims) > len(getattr(os, "sched_getaffinity", lambda _: [0])(0)):
        pytest.skip("two groups train at a time on two cores")
    arms = tuple((f"dim{dim}", {"model.dim": dim}) for dim in dims)
    more = f"""
    sweep.arms = {arms}
    sweep.reference = "dim8"
    run.train.steps = 2000
    run.evaluate.every = 2000
"""
    path = small_sweeps.config_file(tmp_path, arms=more)
    undisturbed = small_sweeps.finished(path, tmp_path / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    out = tmp_path / "stopped"
    process = programs.start("sweep", f"--config={path}", f"--workdir={out}")
    first = [out / "runs" / name / "seed0" for name, _ in arms]
    programs.wait_until(lambda: all(programs.last_step(run) >= 20 for run in first), process)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate()[0]
    assert f"{2 * len(dims)} runs to do. Run the same command again" in printed
    saved = [int(path.name) for path in out.glob("groups/*/checkpoints/[0-9]*")]
    assert len(saved) == len(dims)
    assert all(20 <= step < 2000 for step in saved)
    done = small_sweeps.finished(path, out)
    assert done.returncode == 0, done.stderr
    small_sweeps.assert_same_runs(
        small_sweeps.scores(out), small_sweeps.scores(tmp_path / "undisturbed"), tolerance=0
    )


@pytest.mark.slow
def test_a_run_that_breaks_is_kept_and_stops_no_other(tmp_path):
    arms = """
    sweep.arms = (
        ("semi_hard", {}),
        ("broken", {"optimizer.learning_rate": 1e30}),
    )
    sweep.run.optimizer.name = "sgd"
    sweep.run.model.normalize = False
"""
    path = small_sweeps.config_file(tmp_path, arms)
    done = small_sweeps.finished(path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("arm")
    assert summary.failed.to_dict() == {"semi_hard": 0, "broken": 2}
    assert summary.runs["semi_hard"] == 2
    error = (tmp_path / "out" / "runs" / "broken" / "seed0" / "error.txt").read_text()
    assert "is not finite" in error
    again = small_sweeps.finished(path, tmp_path / "out")
    assert "0 to do" in again.stdout
    retried = small_sweeps.finished(path, tmp_path / "out", "--retry")
    assert retried.returncode == 0, retried.stderr
    assert "2 to do" in retried.stdout
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("arm")
    assert summary.failed["broken"] == 2


def test_of_several_fields_the_unknown_one_is_named(tmp_path):
    path = small_sweeps.config_file(tmp_path)
    for fields, name in (
        (("engine=here", "run.train.stepz=5"), "train.stepz"),
        (("run.train.steps=60", "enginee=here"), "enginee"),
        (("run.schedules.none.a=0.5",), "schedules.none.a"),
    ):
        done = small_sweeps.finished(
            path, tmp_path / "out", *(f"--config.{field}" for field in fields)
        )
        programs.refused(done, f"config field='{name}' is not known")


def test_a_folder_of_another_sweep_is_refused_and_seeds_may_be_added(vectorised, tmp_path):
    path, workdir, _ = vectorised
    other = small_sweeps.finished(path, workdir, "--config.run.loss.margin=0.7")
    assert other.returncode == 2
    assert "holds another sweep: run differ" in other.stderr
    assert "Traceback" not in other.stderr
