"""What is installed, what it needs, and where the programs start."""

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

import packaging.requirements
import pytest

from tests.support import compiling

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {
    "PIL",
    "absl",
    "array_record",
    "flax",
    "grain",
    "huggingface_hub",
    "jinja2",
    "lancedb",
    "matplotlib",
    "ml_collections",
    "optax",
    "optuna",
    "orbax",
    "pandas",
    "plotly",
    "pyarrow",
    "rich",
    "safetensors",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
}
USE = """
import json, sys

import numpy

from triplet_jax import contrastive, distances, losses, mining, regularisers, schedules, telemetry

loaded = sorted({name.partition(".")[0] for name in sys.modules})
loss, _ = losses.triplet_loss(numpy.eye(3), [0, 0, 1], miner="batch_hard")
print(json.dumps([losses.__file__, loaded, float(loss)]))
"""
EVALUATE = """
from triplet_jax import evaluation

scores = evaluation.retrieval([[0.0], [1.0], [1.5]], [0, 1, 1])
scores |= evaluation.clustering([[0.0], [1.0], [1.5]], [0, 1, 1])
scores |= evaluation.verification([[0.0], [1.0], [1.5]], [0, 1, 1])
"""


def use(python, then="", **environment):
    """What a program that uses the library loads, from where, and the loss that it gets.

    What comes `then` runs after it has looked.
    """
    plain = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu", "XLA_FLAGS": compiling.QUICKLY}
    done = subprocess.run(
        [python, "-c", USE + then],
        env=plain | environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_losses_load_no_data_checkpoint_or_plotting_library():
    _, loaded, _ = use(sys.executable, PYTHONPATH=str(ROOT))
    assert not HEAVY & set(loaded)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy, so that what lies around in the clone is not in it."""
    place = tmp_path_factory.mktemp("wheel")
    without_caches = shutil.ignore_patterns("__pycache__")
    for folder in ("triplet_jax", "experiments", "configs"):
        shutil.copytree(ROOT / folder, place / "clone" / folder, ignore=without_caches)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place / "clone")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", place, place / "clone"], check=True)
    return next(place.glob("*.whl"))


def test_the_wheel_holds_the_library_alone(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {str(file.relative_to(ROOT)) for file in (ROOT / "triplet_jax").rglob("*.py")}
    assert names == expected | {"triplet_jax/py.typed"}


def test_the_wheel_works_with_what_it_requires_and_nothing_else(wheel, tmp_path):
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    metadata = importlib.metadata.Distribution.at(next(site.glob("triplet_jax*.dist-info")))
    for distribution in needed_by(metadata).values():
        for part in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (site / part).symlink_to(distribution.locate_file(part))
    file, loaded, loss = use(python, then=EVALUATE)
    assert pathlib.Path(file).is_relative_to(site)
    assert not HEAVY & set(loaded)
    assert loss > 0


def needed_by(distribution, extras=("",)):
    """The distributions that one requires, and those that they require, by name."""
    found = {}
    for line in distribution.requires or ():
        requirement = packaging.requirements.Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            needed = importlib.metadata.distribution(requirement.name)
            found |= {requirement.name: needed} | needed_by(needed, ("", *requirement.extras))
    return found


NOT_INSTALLED = """
import importlib, sys

_, module, package = sys.argv
sys.modules[package] = None  # as if it were not installed
importlib.import_module(module)
"""


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("data", "PIL", "data"),
        ("models", "flax", "training"),
        ("training", "optax", "training"),
        ("analysis", "plotly", "analysis"),
    ],
)
def test_a_package_whose_extra_is_not_installed_names_it(module, package, extra):
    program = [sys.executable, "-c", NOT_INSTALLED, f"triplet_jax.{module}", package]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert f"ModuleNotFoundError: triplet_jax.{module} needs {package}: " in done.stderr
    assert f"pip install 'triplet_jax[{extra}]'" in done.stderr


@pytest.mark.slow
def test_the_programs_find_their_configs_beside_a_folder_of_the_users_own(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "configs.py").write_text("raise SystemExit('the user's own')")
    code = "import experiments; from configs import base; print(base.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert pathlib.Path(done.stdout.strip()) == ROOT / "configs" / "base.py"


def test_the_container_is_made_of_what_is_there():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY ")]
    assert copied == ["requirements.lock", "."]
    assert all((ROOT / name).exists() for name in copied)
    said = (ROOT / "docs" / "cluster.md").read_text()
    extras = importlib.metadata.metadata("jax").get_all("Provides-Extra")
    for extra in ("cuda12", "cuda13", "tpu", "k8s"):
        assert extra in said
        assert extra in extras
