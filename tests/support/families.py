"""What the tests of every family of backbones check."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors


def images(key, rows=4, size=8):
    """A few random images."""
    return 1 + jax.random.normal(key, (rows, size, size, 3))


def random_variables(backbone, key, shape=(8, 8, 3)):
    """Variables for inputs of a shape, whose every array is random; scales and variances are
    positive."""
    x = jnp.zeros((1, *shape))
    shapes = jax.eval_shape(lambda: backbone.init(key, x, False))
    random = np.random.default_rng(0)

    def draw(path, leaf):
        values = random.normal(size=leaf.shape)
        name = path[-1].key
        if name in ("scale", "var"):
            values = 1 + 0.1 * np.abs(values)
        elif name == "kernel":
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            values *= 0.1
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def check_names(backbone, key):
    """Every array has one published name in each layout, and every parameter one stage."""
    x = jnp.zeros((1, 8, 8, 3))
    variables = jax.eval_shape(lambda: backbone.init(key, x, False))
    paths = {
        tuple(entry.key for entry in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    }
    for layout in backbone.layouts():
        assert paths == layout.arrays.keys(), layout.name
        names = [name for stored in layout.arrays.values() for name in stored.names()]
        assert len(set(names)) == len(names)
    groups = [group for names in backbone.stages().values() for group in names]
    assert sorted(groups) == sorted(variables["params"])


def trained(backbone, variables, x, keys=None):
    """The features of a training step, the statistics after it, and a gradient."""

    @jax.jit
    def step(params):
        def value(params):
            given = variables | {"params": params}
            y, after = backbone.apply(given, x, True, keys, mutable=["batch_stats"])
            return (y**2).sum(), (y, after.get("batch_stats", {}))

        return jax.grad(value, has_aux=True)(params)

    gradient, (y, statistics) = step(variables["params"])
    return y, statistics, gradient


def check_remat(make, key):
    """A step whose blocks are computed anew is the same step."""
    variables = random_variables(make(), key)
    x, keys = images(key), jax.random.split(key, 4)
    plain, anew = (trained(make(remat=remat), variables, x, keys) for remat in (False, True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), plain, anew)


def moved_statistics(backbone, key):
    """Which statistics a step of training moves, by the name of their layer or block."""
    variables = random_variables(backbone, key)
    _, after, _ = trained(backbone, variables, images(key))
    return {
        name: any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(after[name]), jax.tree.leaves(layer), strict=True)
        )
        for name, layer in variables["batch_stats"].items()
    }


def check_stochastic_depth(backbone, key):
    """Equal rows differ by what they skip, each by its own key; without keys none skips.

    The statistics are the running ones, because those of the batch would mix the rows.
    """
    backbone = backbone.clone(frozen=99)
    x = jnp.broadcast_to(images(key, 1), (16, 8, 8, 3))
    variables, keys = random_variables(backbone, key), jax.random.split(key, 16)
    apply = jax.jit(backbone.apply, static_argnums=2)
    rows = np.asarray(apply(variables, x, True, keys))
    assert 2 <= len(np.unique(rows.round(3), axis=0)) < 16
    part = apply(variables, x[:2], False, keys[6:8])  # as where statistics are fixed
    np.testing.assert_allclose(part, rows[6:8], rtol=1e-4, atol=1e-5)
    assert np.ptp(np.asarray(apply(variables, x, False)), axis=0).max() < 1e-5
    with pytest.raises(errors.InputError, match="pass one key for each row"):
        apply(variables, x, True)


def check_half_precision(make, key, most):
    """With bfloat16, whatever is kept is float32, and features differ by less than `most`."""
    variables, x = random_variables(make(), key), images(key)
    whole = jax.eval_shape(functools.partial(trained, make(dtype=jnp.bfloat16)), variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {jnp.dtype("float32")}
    plain, mixed = (
        jax.jit(functools.partial(make(dtype=d).apply, train=False))(variables, x)
        for d in (None, jnp.bfloat16)
    )
    error = jnp.linalg.norm(mixed - plain) / jnp.linalg.norm(plain)
    assert 0 < float(error) < most
