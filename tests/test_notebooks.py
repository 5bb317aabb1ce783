"""The notebooks run top to bottom, from a clean kernel, on runs that are trained here."""

import os
import pathlib

import nbclient
import nbformat
import numpy as np
import PIL.Image
import programs
import pytest
import sklearn.datasets

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"

SMALL_SWEEP = """
from configs.sweeps import schedules

NEEDED = ("batch_hard", "semi_hard", "curriculum", "anti_curriculum")


def get_config():
    sweep = schedules.get_config()
    sweep.run.train.steps = 60
    sweep.run.evaluate.every = 20
    sweep.run.evaluate.episodes = 10
    sweep.run.log.telemetry_every = 20
    sweep.run.model.width = 32
    sweep.best_of = NEEDED[2:]
    sweep.arms = [arm for arm in sweep.arms if arm[0] in NEEDED]
    sweep.seeds = (0, 1)
    return sweep
"""


def execute(name, **surroundings):
    """The text that a notebook's cells put out."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    before = dict(os.environ)
    os.environ.update({"XLA_FLAGS": ""} | {k: str(v) for k, v in surroundings.items()})
    try:
        nbclient.NotebookClient(
            notebook, timeout=180, resources={"metadata": {"path": str(FOLDER)}}
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    warnings = [out.text for out in outputs if out.get("name") == "stderr"]
    assert not warnings, warnings
    return "".join(out.text for out in outputs if out.output_type == "stream")


def train(workdir, **fields):
    done = programs.run("train", f"--workdir={workdir}", **fields)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("noisy") / "run", dataset__label_noise=0.05)


def test_embedding_clusters(noisy):
    assert "539 test examples of 10 classes" in execute("embedding_clusters", WORKDIR=noisy)


def test_label_noise(noisy):
    said = execute("label_noise", WORKDIR=noisy)
    assert "51 of 1079 training labels are wrong" in said
    assert "average precision by suspicion" in said


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.py").write_text(SMALL_SWEEP)
    done = programs.run("sweep", f"--config={folder / 'small.py'}", f"--workdir={folder / 'out'}")
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_mining_dynamics(sweep):
    execute("mining_dynamics", WORKDIR=sweep)


def test_ablation(sweep):
    said = execute("ablation", WORKDIR=sweep)
    assert "16 runs" in said
    assert "CKA of semi_hard and anti_curriculum" in said


def test_own_images(tmp_path):
    bunch = sklearn.datasets.load_digits()
    for i, (pixels, c) in enumerate(zip(bunch.images[:400], bunch.target, strict=False)):
        (tmp_path / "images" / str(c)).mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray((pixels * 15).astype(np.uint8)).resize((24, 24))
        image.save(tmp_path / "images" / str(c) / f"{i}.png")
    workdir = train(
        tmp_path / "run",
        config="configs/folder.py",
        dataset__path=tmp_path / "images",
        dataset__image_size=16,
        dataset__validation_fraction=0.3,
        augment__flip=False,
    )
    said = execute("own_images", WORKDIR=workdir, FOLDER=tmp_path / "images")
    assert "400 images in 10 folders" in said
    assert "same up to a distance" in said
