"""The notebooks run top to bottom, from a clean kernel, on runs that are trained here."""

import ast
import os
import pathlib
import types

import nbclient
import nbformat
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

from tests.support import programs
from tests.support.clusters import clusters

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"

SMALL_SWEEP = """
from configs import digits
from configs.sweeps import base


def get_config():
    run = digits.get_config()
    run.train.steps = 30
    run.evaluate.every = 10
    run.evaluate.episodes = 10
    run.log.telemetry_every = 10
    run.model.name = "mlp"
    run.model.width = 16
    sweep = base.get_config(run)
    sweep.arms = {arms!r}
    sweep.settings = {settings!r}
    sweep.reference = sweep.arms[0][0]
    sweep.metric = "r_precision"
    sweep.seeds = (3, 4)
    return sweep
"""
# One like that of `make compare`, and one whose names and losses nobody foresaw.
SWEEPS = {
    "known": (
        [(arm, {"mining.miner": arm}) for arm in ("semi_hard", "batch_hard")],
        [("clean", {}), ("noise40", {"dataset.label_noise": 0.4})],
    ),
    "own": (
        [
            ("plain", {"log.telemetry_every": 0}),
            ("softmax", {"loss.name": "info_nce", "loss.metric": "cosine"}),
        ],
        [("", {})],
    ),
    "alone": ([("only", {})], [("", {})]),
}


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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path):
    """Also of the notebooks that only the slow tests run: every `module.name` of ours exists."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    cells = ["\n".join(s for s in c.splitlines() if not s.startswith("%")) for c in cells]
    tree = ast.parse("\n".join(cells))
    ours = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module.partition(".")[0] in ("triplet_jax", "experiments", "configs")
    ]
    names: dict[str, object] = {}
    exec(compile(ast.Module(body=ours, type_ignores=[]), path.name, "exec"), names)
    assert ours
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            if isinstance(module, types.ModuleType):
                assert hasattr(module, node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.slow
def test_embedding_clusters(plain_run):
    said = execute("embedding_clusters", WORKDIR=plain_run)
    assert "539 test examples of 10 classes" in said


@pytest.mark.slow
def test_embedding_clusters_opens_a_file_of_any_library(tmp_path):
    x, labels = clusters(classes=5, per_class=8)
    np.savez(tmp_path / "theirs.npz", embeddings=x)
    rows = [f"person {label}" for label in labels]
    (tmp_path / "labels.csv").write_text("\n".join(["label", *rows]))
    said = execute(
        "embedding_clusters",
        EMBEDDINGS=tmp_path / "theirs.npz",
        TABLE=tmp_path / "labels.csv",
    )
    assert "40 test examples of 5 classes" in said


@pytest.mark.slow
def test_label_noise(noisy):
    said = execute("label_noise", WORKDIR=noisy)
    assert "51 of 1079 training labels are wrong" in said
    assert "average precision by suspicion" in said


@pytest.fixture(scope="module", params=["own", "known", "alone"])
def sweep(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    arms, settings = SWEEPS[request.param]
    (folder / "small.py").write_text(SMALL_SWEEP.format(arms=arms, settings=settings))
    done = programs.run("sweep", f"--config={folder / 'small.py'}", f"--workdir={folder / 'out'}")
    assert done.returncode == 0, done.stderr
    return request.param, folder / "out"


@pytest.mark.slow
def test_mining_dynamics_takes_any_sweep(sweep):
    name, workdir = sweep
    said = execute("mining_dynamics", WORKDIR=workdir)
    assert ("without telemetry (log.telemetry_every=0): plain" in said) == (name == "own")


@pytest.mark.slow
def test_ablation_takes_any_sweep(sweep):
    name, workdir = sweep
    said = execute("ablation", WORKDIR=workdir)
    runs, pair = {
        "known": (8, "semi_hard and batch_hard"),
        "own": (4, "plain and softmax"),
        "alone": (2, "only and only"),
    }[name]
    assert f"{runs} runs" in said
    assert f"CKA of {pair}" in said


@pytest.mark.slow
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
