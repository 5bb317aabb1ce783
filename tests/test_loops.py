"""The training loops that the documentation shows: each learns, and all devices learn the same."""

import pathlib
import re
import runpy
import sys

import jax
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import contrastive, losses

LOOPS = pathlib.Path(__file__).parents[1] / "docs" / "loops"
OVER_DEVICES = ("jit_shardings", "pmap", "shard_map")
ON_ONE = sorted({path.stem for path in LOOPS.glob("*.py")} - {*OVER_DEVICES})
STEPS = 30


@pytest.fixture
def run(monkeypatch):
    """Runs a loop for some steps, and returns its variables and how often its loss was traced."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")

    def run(name, steps):
        traced = []
        for module, loss in ((losses, "triplet_loss"), (contrastive, "contrastive_loss")):
            monkeypatch.setattr(module, loss, counted(getattr(module, loss), traced))
        monkeypatch.setattr(sys, "argv", [name, str(steps)])
        return runpy.run_path(str(LOOPS / f"{name}.py")), len(traced)

    return run


def counted(function, calls):
    def call(*args, **settings):
        calls.append(function)
        return function(*args, **settings)

    return call


@pytest.mark.parametrize("name", cases.mostly_slow(ON_ONE, ["plain_optax"]))
def test_a_loop_learns_and_is_compiled_once(name, run, capsys):
    left, traced = run(name, STEPS)
    before, after = map(float, re.findall(r"\d\.\d+(?= before| after)", capsys.readouterr().out))
    assert after > before + 0.05
    assert 1 <= traced <= 2  # Keras looks at its shapes first
    if name == "keras_fit":
        assert int(left["encoder"].step.value) == STEPS
    if name == "text_triplets":
        datasets = pytest.importorskip("datasets", reason="pip install datasets to run this test")
        table = {column: list(texts) for column, texts in left["table"].items()}
        assert datasets.Dataset.from_dict(table)[:] == table


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def on_one_device():
    """What three steps of the plain loop leave, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plain_optax", "3"])
        return runpy.run_path(str(LOOPS / "plain_optax.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER_DEVICES)
def test_a_loop_over_devices_does_what_it_does_on_one(name, run, on_one_device):
    left, _ = run(name, 3)
    assert left["params"]["hidden"].sharding.num_devices == jax.device_count() == 8
    # The moments of Adam are sums of gradients and of their squares.
    for name in ("params", "state", "loss"):
        jax.tree.map(assert_close, left[name], on_one_device[name])
    assert left["after"]["map_at_r"] == pytest.approx(on_one_device["after"]["map_at_r"], abs=0.01)


@pytest.mark.parametrize("path", sorted(LOOPS.glob("*.py")), ids=lambda path: path.stem)
def test_a_loop_is_short_and_on_its_page(path):
    assert len(path.read_text().splitlines()) < 60
    assert f"loops/{path.name}" in (LOOPS.parent / "loops.md").read_text()
