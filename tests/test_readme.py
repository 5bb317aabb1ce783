"""What the README shows works as it stands there."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import losses

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LOSSES = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "losses" in code]


@pytest.mark.parametrize("code", LOSSES)
def test_code_runs(code):
    embeddings = jax.random.normal(jax.random.key(0), (12, 4))
    names = {"embeddings": embeddings, "labels": np.arange(12) // 3}
    exec(code, names)
    assert np.isfinite(names["loss"])


def test_the_miner_of_ten_lines_works_in_tiles_and_devices():
    names = {"embeddings": jnp.ones((2, 2)), "labels": np.arange(2)}
    exec(next(code for code in LOSSES if "def " in code), names)
    miner = names["hardest_within_margin"]
    x, y = jax.random.normal(jax.random.key(1), (16, 3)), np.arange(16) // 4
    whole, _ = losses.triplet_loss(x, y, miner=miner)
    tiled, _ = losses.triplet_loss(x, y, miner=miner, tile_size=5)
    sharded = jax.pmap(
        lambda x, y: losses.triplet_loss(x, y, miner=miner, axis_name="devices")[0],
        axis_name="devices",
    )(x.reshape(8, 2, 3), y.reshape(8, 2))
    assert float(whole) > 0
    np.testing.assert_allclose([tiled, *sharded], whole, rtol=1e-5)


def test_files_it_links_to_exist():
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_programs_it_names_exist():
    for program in re.findall(r"python -m experiments\.(\w+)", README):
        assert (ROOT / "experiments" / f"{program}.py").exists()
