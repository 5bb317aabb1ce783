"""Starts a run from the encoder of another run."""

import hashlib
import inspect
import pathlib
from typing import Any

import flax.traverse_util
import jax
import ml_collections
import numpy as np

from experiments.config import components, preprocessing
from experiments.run import config_json, data_json, restoring
from triplet_jax import errors
from triplet_jax.models import standardise
from triplet_jax.runs import files

Arrays = dict[tuple[str, ...], Any]


def start(
    config: ml_collections.FrozenConfigDict, shapes: Any, record_file: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of the run in `model.init_from`, and their record for `weights.json`.

    The backbone and the statistics of the other run's best checkpoint are taken, and each part of
    its head that has the same shape. In a run of several processes all of them need the folder.

    Args:
      config: of the run that starts.
      shapes: of the variables of its encoder.
      record_file: the file of a run's folder that says which weights it began with.

    Raises:
      InputError: there is no such run, or its encoder is of another architecture.
    """
    workdir = find(config)
    theirs = config_json.read(workdir)
    shape, pair_shapes = data_json.input_shapes(workdir, theirs)
    _check_architecture(config, theirs, shape)
    step, state = restoring.load(workdir, theirs, shape, pair_shapes).judged()
    taken = flax.traverse_util.flatten_dict(jax.device_get(state.variables))
    wanted = flax.traverse_util.flatten_dict(dict(shapes))
    towers = config.model.towers
    head = [path for path in wanted if _part(path, towers) not in _KEPT]
    _check_shapes(
        {path: wanted[path] for path in wanted if path not in head},
        {path: x for path, x in taken.items() if _part(path, towers) in _KEPT},
    )
    fresh = {
        _owner(path, towers)
        for path in head
        if path not in taken or taken[path].shape != wanted[path].shape
    }
    kept = {p: taken[p] for p in wanted if p not in head or _owner(p, towers) not in fresh}
    before = files.read_json(workdir / record_file) if (workdir / record_file).exists() else {}
    new = sorted(".".join(owner[1:]) for owner in fresh)
    record = {
        "source": str(workdir),
        "step": step,
        "sha256": _digest(kept),
        "licence": before.get("licence"),
        "head": f"the head is new, as its shape differs: {', '.join(new)}"
        if new
        else "with its head",
        "left_out": [],
        "weights": before or None,
    }
    return flax.traverse_util.unflatten_dict(kept), record


def find(config: ml_collections.FrozenConfigDict) -> pathlib.Path:
    """The folder of the run in `model.init_from`.

    Raises:
      InputError: it holds no run.
    """
    workdir = pathlib.Path(config.model.init_from).absolute()
    if not (workdir / "config.json").exists():
        raise errors.InputError(
            "there is no run in this folder, which has no config.json. Give the --workdir of a run"
            " that was trained."
        )
    return workdir


_KEPT = ("backbone", standardise.LAYER)
"""The parts of an encoder that are always taken: the backbone, and statistics of features."""


def _part(path, towers):
    """The part of an encoder that an array belongs to."""
    return path[towers]


def _owner(path, towers):
    """The kind of an array, and the layer of the head that it belongs to."""
    return path[: towers + 1]


def _check_architecture(config, theirs, shape):
    """Refuses fields that make another backbone, or that have it see other values."""
    mine, other = _architecture(config, shape), _architecture(theirs, shape)
    lines = [
        f"  {name}={mine[name][1]!r} here, {other[name][1]!r} there: set {name}={other[name][0]!r}"
        for name in mine
        if name in other and mine[name][1] != other[name][1]
    ]
    if lines:
        raise errors.InputError("that run has an encoder of another kind:\n" + "\n".join(lines))


def _architecture(config, shape):
    """By field: the value to set, and what it stands for with inputs of this shape."""
    c = config.model
    found = {name: (c[name], c[name]) for name in ("name", "towers", "width", "norm")}
    if c.towers == 2:
        found["second"] = (c.second or c.name,) * 2
    if len(shape) == 3:
        expects = preprocessing.expected(config)
        pixels = c.pixels if c.pixels != "auto" else "auto" if expects else "unit"
        meant = expects if pixels == "auto" else preprocessing.NAMED[pixels]
        found["pixels"] = (pixels, (meant.mean, meant.std))
    if "stem" in inspect.signature(components.find("model.name", c.name)).parameters:
        stem = preprocessing.stem(config)
        if stem == "by_size":
            stem = "7x7" if min(shape[:2]) >= 64 else "3x3"
        found["stem"] = (stem, stem)
    return {f"model.{name}": values for name, values in found.items()}


def _check_shapes(wanted: Arrays, taken: Arrays) -> None:
    """Refuses arrays that only one of the two has, or that differ in shape."""

    def words(arrays, path):
        return list(arrays[path].shape) if path in arrays else "no array"

    wrong = [
        f"  {'/'.join(path)}: {words(wanted, path)} here, {words(taken, path)} there"
        for path in sorted(wanted.keys() | taken.keys())
        if words(wanted, path) != words(taken, path)
    ]
    if wrong:
        more = [f"  ... and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        raise errors.InputError(
            "the encoder of that run has other arrays:\n"
            + "\n".join(wrong[:8] + more)
            + "\nGive the fields of model and dataset that the other run has."
        )


def _digest(arrays: Arrays) -> str:
    """The SHA-256 of named arrays."""
    total = hashlib.sha256()
    for path in sorted(arrays):
        total.update("/".join(path).encode())
        total.update(np.ascontiguousarray(arrays[path]))
    return total.hexdigest()
