"""The programs, as a person uses them: results, refusals, and one's own images."""

import concurrent.futures
import errno
import json
import pathlib
import subprocess

import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

from experiments import command
from experiments.run import score_table
from experiments.run.training import train
from tests.support import cases, once, programs
from triplet_jax.runs import row_files, telemetry_file


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A short run, with eight devices and the average of the weights; no test may change it."""

    def train(folder):
        folder.mkdir()
        done = programs.run(
            "train",
            f"--workdir={folder / 'run'}",
            devices=8,
            model__name="conv4",
            train__steps=120,
            evaluate__every=30,
            optimizer__average_decay=0.9,
            optimizer__clip_norm=1.0,
            optimizer__warmup_steps=20,
            log__trackers="('tensorboard',)",
        )
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    folder = once.made_once(tmp_path_factory, "eight_devices", train)
    return folder / "run", (folder / "printed.txt").read_text()


def test_a_run_leaves_what_the_readme_says(trained):
    workdir, _ = trained
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "config.json",
        "data.json",
        "embeddings.npz",
        "metrics.jsonl",
        "result.json",
        "seconds.json",
        "telemetry.jsonl",
        "tensorboard",
        "timing.jsonl",
    }
    arrays = telemetry_file.read(workdir)
    np.testing.assert_array_equal(arrays["step"], [50, 100])
    assert arrays["hardness"].shape == (2, 40)
    assert (arrays["effective_rank"] > 1).all()
    config = json.loads((workdir / "config.json").read_text())
    assert config["mining"]["miner"] == "semi_hard"
    rows = row_files.read_rows(workdir / "metrics.jsonl")
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == list(range(10, 121, 10))
    assert {"active_fraction", "num_valid", "learning_rate", "grad_norm"} <= set(training[0])
    assert [row["step"] for row in rows if "validation/map_at_r" in row] == [30, 60, 90, 120]
    with np.load(workdir / "embeddings.npz", allow_pickle=False) as saved:
        assert saved["embeddings"].shape == (1797, 16)
        np.testing.assert_allclose(np.linalg.norm(saved["embeddings"], axis=1), 1, rtol=1e-4)
        assert set(saved["split"]) == {"train", "validation", "test"}


def test_the_result_names_its_protocol_and_beats_raw_pixels(trained):
    workdir, printed = trained
    result = json.loads((workdir / "result.json").read_text())
    ours, raw = (result[which]["retrieval"]["map_at_r"] for which in ("embedding", "raw_pixels"))
    assert ours > raw + 0.2
    assert {"protocol", "versions", "seed", "device", "evaluation_seconds"} <= set(result)
    assert result["device"].startswith("8 x")
    assert f"{ours:.3f}" in printed
    assert f"{raw:.3f}" in printed


def test_a_run_prints_no_warnings(trained):
    _, printed = trained
    assert "warning" not in printed.lower()


# -- refusals


BAD_FIELDS = [
    ({"train__stepz": 5}, ["'train.stepz' is not known", "Did you mean 'train.steps'"]),
    ({"trian__steps": 5}, ["'trian.steps' is not known", "'train.steps'"]),
    ({"mining__miner": "semi-hard"}, ["mining.miner='semi-hard'", "Did you mean 'semi_hard'"]),
    ({"mining__knobs__high": 0.1}, ["mining.miner='semi_hard' has no knob 'high'", "none"]),
    ({"loss__metric": "euclidian"}, ["loss.metric='euclidian'", "Did you mean 'euclidean'"]),
    ({"dataset__name": "digit"}, ["dataset.name='digit'", "Did you mean 'digits'"]),
    ({"model__name": "conv5"}, ["model.name='conv5'", "conv4"]),
    ({"batch__classes": 11}, ["batch.classes=11", "the 10 training classes"]),
    ({"batch__per_class": 1}, ["batch.per_class=1", "at least 2"]),
    ({"batch__per_class": 500}, ["batch.per_class=500", "fewer examples", "'0' (", "'drop'"]),
    ({"train__steps": "many"}, ["config.train.steps=many"]),
    ({"train__steps": 0}, ["train.steps=0", "at least 1"]),
    ({"loss__margin": -1.0}, ["loss.margin=-1.0", "at least 0"]),
    ({"loss__margin": "nan"}, ["loss.margin=nan", "finite"]),
    ({"optimizer__learning_rate": 0.0}, ["optimizer.learning_rate=0.0", "more than 0"]),
    ({"optimizer__warmup_steps": 240}, ["optimizer.warmup_steps=240", "train.steps=240"]),
    ({"dataset__test_fraction": 0.9, "dataset__validation_fraction": 0.2}, ["below 1"]),
    ({"dataset__name": "arrays", "dataset__path": "nowhere.npz"}, ["'nowhere.npz'", "x"]),
    ({"dataset__name": "folder", "dataset__path": "nowhere"}, ["'nowhere' is not a folder"]),
]


@pytest.mark.parametrize(
    ("fields", "words"),
    cases.mostly_slow(BAD_FIELDS, [BAD_FIELDS[i] for i in (0, 2, 3, 5, 7, 10, 13, 17)]),
)
def test_bad_fields_are_refused_at_launch(fields, words, tmp_path):
    programs.refused(programs.run("train", f"--workdir={tmp_path / 'run'}", **fields), *words)


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path):
    done = programs.run("train", f"--workdir={tmp_path}", devices=7)
    programs.refused(done, "batch.classes=10 times batch.per_class=8 is 80", "7 devices")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--wokdir=x"], ["wokdir", "workdir"]),
        ([], ["--workdir is missing"]),
        (["--workdir=/proc/nowhere"], ["/proc/nowhere", "cannot be written"]),
        (["--workdir=x", "extra"], ["'extra'"]),
    ],
)
def test_bad_flags_are_refused(flags, words):
    programs.refused(programs.run("train", *flags), *words)


def test_a_refusal_is_all_that_a_person_sees():
    """By the command that a person types, with all that its imports might say."""
    programs.refused(programs.run_alone("train", "--wokdir=x"), "wokdir", "workdir")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("configs/digits.py:semihard", ["'semihard'", "semi_hard"]),
        ("configs/digit.py", ["configs/digit.py"]),
    ],
)
def test_bad_configs_are_refused(config, words, tmp_path):
    programs.refused(programs.run("train", f"--workdir={tmp_path}", config=config), *words)


def test_data_that_were_not_prepared_are_refused_with_the_command(tmp_path):
    done = programs.run(
        "train",
        f"--workdir={tmp_path / 'run'}",
        config="configs/omniglot.py",
        dataset__data_dir=tmp_path / "none",
    )
    programs.refused(done, "'omniglot' is not prepared", "download_and_prepare()", "tensorflow")


def test_another_config_in_a_workdir_is_refused_showing_the_fields(trained):
    workdir, _ = trained
    done = programs.run("train", f"--workdir={workdir}", devices=8, loss__margin=0.5)
    programs.refused(
        done,
        "another config",
        "loss.margin: 0.3 there, 0.5 now",
        "optimizer.warmup_steps: 20 there, 0 now",
    )
    assert "log." not in done.stderr  # which may change


@pytest.mark.parametrize("program", ["evaluate", "embed"])
def test_a_folder_without_a_run_is_refused(program, tmp_path):
    flags = [f"--workdir={tmp_path}"]
    if program == "embed":
        (tmp_path / "images").mkdir()
        PIL.Image.new("L", (9, 9)).save(tmp_path / "images" / "x.png")
        flags += [f"--images={tmp_path / 'images'}", f"--output={tmp_path / 'out.npz'}"]
    programs.refused(programs.run(program, *flags), "holds no run", "experiments.train")


@pytest.mark.slow
def test_numbers_that_are_not_finite_stop_the_run(tmp_path):
    done = programs.run(
        "train",
        f"--workdir={tmp_path}",
        model__normalize=False,
        optimizer__name="sgd",
        optimizer__learning_rate=1e25,
        model__norm="group",
    )
    assert done.returncode == 1
    assert "is not finite" in done.stderr
    assert "learning rate" in done.stderr
    assert "last good checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_goes_on_once_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount the small disk that this test fills")
    try:
        done = programs.run("train", f"--workdir={disk / 'run'}", model__width=32)
        programs.refused(done, "the disk is full", "Run the same command again", status=3)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        again = programs.run("train", f"--workdir={disk / 'run'}", model__width=32)
        assert again.returncode == 0, again.stderr
    finally:
        subprocess.run(["umount", disk], check=True)


ENDING = """
import errno, jax
from experiments import command
from triplet_jax.devices import processes
processes.several = lambda: True
def main():
    {fault}
command.run(main)
"""


def ending(fault):
    return programs.run_code(ENDING.format(fault=fault))


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (
            "raise OSError(errno.ESTALE, 'Stale')",
            3,
            ["a file cannot", "Stale", "same command again."],
        ),
        (
            "raise OSError(errno.ENOSPC, 'No space', 'all.parquet')",
            3,
            ["all.parquet cannot be used: No space. Free some space. Run the same command again."],
        ),
        ("open('x' * 300)", 1, ["File name too long", "xxx"]),
        (
            "raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9.')",
            1,
            ["too little memory", "train.micro_batches", "allocating 9"],
        ),
    ],
)
def test_what_a_machine_lacks_is_said(fault, status, words):
    done = ending(fault)
    programs.refused(done, *words, status=status)
    assert "another process" not in done.stderr


@pytest.mark.parametrize("kind", ["jax.errors.JaxRuntimeError", "ValueError"])
def test_a_collective_that_fails_says_that_a_process_is_lost(kind):
    why = "UNKNOWN: Gloo all-reduce failed: Connection closed by peer"
    done = ending(f"raise {kind}({why!r})")
    programs.refused(done, "another process", why, "same command again", status=3)


def test_an_error_of_the_code_keeps_its_traceback():
    done = ending("raise ValueError('not of XLA')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_workdir_may_be_made_by_several_at_once(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(command.make_workdir, [str(tmp_path)] * 400)) == {tmp_path}
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_may_be_made_later_is_not_refused(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "mkdir", full)
    with pytest.raises(OSError, match="No space"):
        command.make_workdir(str(tmp_path))


# -- other data


@pytest.mark.slow
@pytest.mark.parametrize("split_by", ["image", "class"])
def test_arrays_of_features_train_an_mlp(split_by, tmp_path):
    bunch = sklearn.datasets.load_digits()
    np.savez(tmp_path / "data.npz", x=bunch.data, y=bunch.target)
    done = programs.run(
        "train",
        f"--workdir={tmp_path / 'run'}",
        dataset__name="arrays",
        dataset__path=tmp_path / "data.npz",
        dataset__split_by=split_by,
        dataset__validation_fraction=0.2,
        batch__classes=4,
        model__name="mlp",
        model__width=64,
        augment__shift=0.0,
        augment__rotate=0.0,
        augment__scale=0.0,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["embedding"]["retrieval"]["map_at_r"] > 0.5


@pytest.mark.slow
def test_omniglot_trains_streamed_and_resident(omniglot_dir, tmp_path):
    fields = {
        "config": "configs/omniglot.py",
        "dataset__data_dir": omniglot_dir,
        "model__width": 8,
        "train__steps": 4,
        "log__every": 1,
    }
    done = programs.run("train", f"--workdir={tmp_path / 'resident'}", **fields)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "resident" / "result.json").read_text())
    assert result["embedding"]["retrieval"]["queries"] == 13180
    assert "few_shot_1_within_group" in result["embedding"]

    streamed = programs.start(
        "train", f"--workdir={tmp_path / 'streamed'}", dataset__placement="stream", **fields
    )
    programs.wait_until(lambda: programs.last_step(tmp_path / "streamed") >= 4, streamed)
    streamed.kill()  # its evaluation would be the same
    streamed.communicate()
    losses = [
        [row["loss"] for row in rows if "loss" in row]
        for name in ("resident", "streamed")
        for rows in [row_files.read_rows(tmp_path / name / "metrics.jsonl")]
    ]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_run_is_trained_by_the_scores_of_another(trained, tmp_path):
    scores = tmp_path / "scores.npz"
    done = programs.run("score", f"--runs={trained[0]},{trained[0]}", f"--output={scores}")
    assert done.returncode == 0, done.stderr
    assert "1,079 training examples by 2 runs" in done.stdout
    fields = {"batch__scores": scores, "batch__pool": 0.5, "train__steps": 10}
    done = programs.run("train", f"--workdir={tmp_path / 'easy'}", **fields)
    assert done.returncode == 0, done.stderr


def test_every_name_that_is_shown_is_measured(trained):
    workdir, _ = trained
    result = json.loads((workdir / "result.json").read_text())
    shown = [pair for pair in score_table.SHOWN.values() if "group" not in pair[0]]
    assert all(metric in result["embedding"][part] for part, metric in shown)
    assert callable(train)


def test_only_the_folder_of_a_sweep_has_jobs_to_cancel(tmp_path):
    config = "--config=configs/sweeps/schedules.py"
    done = programs.run("sweep", config, f"--workdir={tmp_path / 'none'}", "--cancel")
    programs.refused(done, "holds no sweep")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("program", "flags", "words"),
    [
        ("train", ["--data=elsewhere"], "--data is of other programs"),
        ("report", ["--output=out.html"], "--output is of other programs"),
        ("search", ["--duplicates", "--gallery=.", "--neighbours=3"], "leave out --neighbours"),
        (
            "classify",
            ["--gallery=.", "--query=x.png", "--by=means", "--neighbours=3"],
            "--neighbours has no effect with --by=means",
        ),
    ],
)
def test_flags_without_an_effect_are_refused(program, flags, words, tmp_path):
    programs.refused(programs.run(program, f"--workdir={tmp_path}", *flags), words)
