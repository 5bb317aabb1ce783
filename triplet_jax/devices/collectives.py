"""Collectives: how arrays are gathered, summed and shared out over devices.

This is the only module that knows the name of the device axis. Every function takes an axis name
and does nothing where it is None, so that the same code runs on one device without `pmap`.
"""

import functools
from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree, Shaped

from triplet_jax import errors

DEVICES = "devices"


def own_devices() -> Int[np.ndarray, "devices"]:
    """The positions of this process's devices on the axis."""
    count = jax.local_device_count()
    return jax.process_index() * count + np.arange(count)


def over_devices(
    function: Callable,
    *,
    in_axes: tuple[int | None, ...],
    out_axes: int | None = None,
    donate_argnums: int | tuple[int, ...] = (),
) -> Callable:
    """`jax.pmap` over the devices of all processes, in the order of the axis.

    Args:
      function: what each device runs; it may use the axis name `DEVICES`.
      in_axes: for each argument 0 if devices get a row each, and None if all get the same.
      out_axes: 0 if every device returns its own result, None if all return the same.
      donate_argnums: the arguments whose memory the results may take.
    """
    return jax.pmap(
        function,
        axis_name=DEVICES,
        in_axes=in_axes,
        out_axes=out_axes,
        donate_argnums=donate_argnums,
        devices=_in_order(),
    )


def _in_order() -> list[jax.Device] | None:
    """All devices in the order of the axis: those of one process are neighbours.

    With one process it is None, which leaves the choice to `pmap`.
    """
    if jax.process_count() == 1:
        return None
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def count(axis_name: str | None) -> int:
    """The number of devices on the axis.

    Raises:
      InputError: there is no such axis here. All functions of this module raise this.
    """
    return 1 if axis_name is None else jax.lax.axis_size(_known(axis_name))


def _known(axis_name: str) -> str:
    try:
        jax.lax.axis_size(axis_name)
    except NameError as error:
        raise errors.InputError(
            f"axis_name={axis_name!r} is no axis here. Call this inside jax.pmap(...,"
            f" axis_name={axis_name!r}), or inside jax.shard_map over a mesh with that axis; on one"
            " device leave axis_name out."
        ) from error
    return axis_name


def alike(tree: PyTree) -> PyTree:
    """Marks all arrays as varying over the axes over which one of them varies.

    Inside `jax.shard_map` with `check_vma`, jax tells arrays that are the same on all devices from
    those that vary, and what a loop carries must stay of one kind.
    """

    def axes(x: Array) -> frozenset[str]:
        return jax.typeof(x).manual_axis_type.varying

    leaves, structure = jax.tree.flatten(tree)
    varying = frozenset().union(*map(axes, leaves))
    if varying:
        leaves = [jax.lax.pcast(x, tuple(varying - axes(x)), to="varying") for x in leaves]
    return jax.tree.unflatten(structure, leaves)


def whole(tree: PyTree) -> PyTree:
    """Replicates arrays that are spread over a mesh with explicit axes.

    There jax refuses to sort or to pick rows of an array that is spread over devices. Other arrays
    stay as they are.
    """

    def of_array(x: Array) -> Array:
        sharding = jax.typeof(x).sharding
        if all(axes is None for axes in sharding.spec):
            return x
        # Over the mesh of the array itself, which need not be that of `jax.set_mesh`.
        everywhere = jax.NamedSharding(sharding.mesh, jax.P())
        return jax.sharding.reshard(x, everywhere)

    return jax.tree.map(of_array, tree)


def gather(x: PyTree, axis_name: str | None) -> PyTree:
    """Gathers the rows of all devices, in device order, for every array `[batch, ...]`.

    It is differentiable: a row's gradient is the sum over devices.
    """
    if axis_name is None:
        return x
    return jax.tree.map(functools.partial(_gather, axis_name=_known(axis_name)), x)


def _gather(x: Shaped[Array, "rows ..."], axis_name: str) -> Shaped[Array, "all_rows ..."]:
    if jax.default_backend() != "cpu" or not jnp.issubdtype(x.dtype, jnp.floating):
        return jax.lax.all_gather(x, axis_name, tiled=True)
    # The gradient of all_gather is a reduce-scatter. On CPUs it gives up if a process is 30 s late,
    # and may be wrong for large arrays (jax issues 40831 and 40830). The gradient of a sum is a
    # sum.
    rows = x.shape[0]
    everywhere = jnp.zeros((rows * count(axis_name), *x.shape[1:]), x.dtype)
    first = jax.lax.axis_index(axis_name) * rows
    placed = jax.lax.dynamic_update_slice_in_dim(everywhere, x, first, axis=0)
    return jax.lax.psum(placed, axis_name)


def share(
    x: Shaped[Array, "rows ..."], axis_name: str | None
) -> tuple[Shaped[Array, "share ..."], Int[Array, "share"]]:
    """This device's share of rows that every device has, and their positions.

    All shares have one size. Rows that only fill the last share have a position beyond all rows.
    """
    rows = x.shape[0]
    if axis_name is None:
        return x, jnp.arange(rows)
    size = -(-rows // count(axis_name))
    places = jax.lax.axis_index(axis_name) * size + jnp.arange(size)
    return x.at[places].get(mode="clip"), places


def total(x: PyTree, axis_name: str | None) -> PyTree:
    """The sum over devices."""
    return x if axis_name is None else _in_one(jax.lax.psum, x, _known(axis_name))


def mean(x: PyTree, axis_name: str | None) -> PyTree:
    """The mean over devices."""
    return x if axis_name is None else _in_one(jax.lax.pmean, x, _known(axis_name))


def _in_one(reduce: Callable, x: PyTree, axis_name: str) -> PyTree:
    """Reduces a tree; on CPUs as one vector, since devices would wait for each array apart."""
    kinds = {jnp.result_type(leaf) for leaf in jax.tree.leaves(x)}
    if jax.default_backend() != "cpu" or len(kinds) != 1:
        return reduce(x, axis_name)
    vector, to_tree = jax.flatten_util.ravel_pytree(x)
    return to_tree(reduce(vector, axis_name))


def largest(x: PyTree, axis_name: str | None) -> PyTree:
    """The maximum over devices."""
    return x if axis_name is None else jax.lax.pmax(x, _known(axis_name))


def own_rows(rows: int, axis_name: str | None) -> Int[Array, "rows"]:
    """The positions of this device's rows in the global batch, if each device has `rows` rows."""
    first = 0 if axis_name is None else jax.lax.axis_index(_known(axis_name)) * rows
    return first + jnp.arange(rows)
