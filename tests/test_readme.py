"""What the README shows works as it stands there."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import oracles
from triplet_jax import losses, mining

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LOSSES = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "losses" in code]


@pytest.mark.parametrize("code", LOSSES)
def test_code_runs(code):
    embeddings = jax.random.normal(jax.random.key(0), (12, 4))
    names = {"embeddings": embeddings, "labels": np.arange(12) // 3}
    exec(code, names)
    assert np.isfinite(names["loss"])


def test_the_miner_of_ten_lines_works_in_tiles_and_devices_and_by_name(monkeypatch):
    names = {"embeddings": jnp.ones((2, 2)), "labels": np.arange(2)}
    exec(next(code for code in LOSSES if "mining.Triplets" in code), names)
    miner = names["hardest_within_margin"]
    monkeypatch.setitem(mining.MINERS, "hardest_within_margin", miner)
    x, y = jax.random.normal(jax.random.key(1), (16, 3)), np.arange(16) // 4

    def loss(x, y, width, **settings):
        mine = functools.partial(miner, width=width)
        return losses.triplet_loss(x, y, miner=mine, average="valid", **settings)

    traces = 0

    @jax.jit
    def whole(width):
        nonlocal traces
        traces += 1
        return loss(x, y, width)

    d = oracles.pairwise(x, x, "euclidean")
    for width in (0.2, 0.9):
        # The nearest negative beyond each positive, where it is near enough.
        chosen = [
            t for t in oracles.mine(x, y, "semi_hard") if d[t[0], t[2]] - d[t[0], t[1]] < width
        ]
        means, valid, _ = oracles.loss_of(x, chosen)
        found, stats = whole(jnp.float32(width))
        assert stats["num_valid"] == valid > 0
        np.testing.assert_allclose(found, means["valid"], rtol=1e-5)
    assert traces == 1
    sharded = jax.pmap(lambda x, y: loss(x, y, 0.9, axis_name="devices")[0], axis_name="devices")(
        x.reshape(8, 2, 3), y.reshape(8, 2)
    )
    tiled, _ = jax.jit(functools.partial(loss, tile_size=5))(x, y, 0.9)
    np.testing.assert_allclose([tiled, *sharded], found, rtol=1e-5)
    by_name = functools.partial(losses.triplet_loss, miner="hardest_within_margin", average="valid")
    named, _ = jax.jit(by_name)(x, y)
    np.testing.assert_allclose(named, whole(jnp.float32(0.2))[0], rtol=1e-5)


def test_files_it_links_to_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", README):
        assert (ROOT / target).exists(), target


def test_programs_it_names_exist():
    for program in re.findall(r"python -m experiments\.(\w+)", README):
        assert (ROOT / "experiments" / f"{program}.py").exists()
