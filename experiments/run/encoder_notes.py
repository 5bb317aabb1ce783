"""What whoever takes an exported encoder must know of it, as plain values."""

import importlib.metadata
import json
import pathlib
from typing import Any

import flax.linen as nn
import ml_collections

import triplet_jax
from experiments.config import datasets, import_paths
from experiments.run import pretrained
from triplet_jax import models

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
# Their examples come as arrays: no picture is scaled or cut.
_ARRAYS = ("arrays", "digits", "pairs")


def notes(
    workdir: pathlib.Path,
    config: ml_collections.FrozenConfigDict,
    encoder: nn.Module,
    step: int,
    shapes: tuple[tuple[int, ...], ...],
) -> dict[str, Any]:
    """The inputs, the outputs and the origin of the encoder of a run.

    Args:
      workdir: of the run.
      config: of the run.
      encoder: its model, as it is exported: with the copies of `evaluate.augment`, or without.
      step: of the checkpoint.
      shapes: of one input of each encoder, or of all.

    Returns:
      `inputs` and `embedding` (of two encoders, by the names `first` and `second`), `step`,
      `weights` (what `weights.json` says, or None), `versions` and `config`.

    Raises:
      InputError: `weights.json` is damaged.
    """
    if isinstance(encoder, models.TwoTowers):
        towers = {name: getattr(encoder, name) for name in ("first", "second")}
        of_towers = dict(zip(towers, shapes if len(shapes) == 2 else shapes * 2, strict=True))
        inputs: Any = {n: _inputs(config, towers[n], shape) for n, shape in of_towers.items()}
        embedding: Any = {n: _embedding(tower) for n, tower in towers.items()}
    else:
        plain = encoder.encoder if isinstance(encoder, models.Augmented) else encoder
        inputs, embedding = _inputs(config, plain, shapes[0]), _embedding(encoder)
    return {
        "inputs": inputs,
        "embedding": embedding,
        "step": step,
        "weights": pretrained.recorded(workdir),
        "versions": versions(),
        "config": json.loads(config.to_json()),
    }


def versions() -> dict[str, str]:
    """The versions of what makes an encoder what it is."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"triplet_jax": triplet_jax.__version__} | found


def _embedding(encoder):
    if isinstance(encoder, models.Augmented):
        of_one = _embedding(encoder.encoder)
        return of_one | {"dim": encoder.dim, "augment": list(encoder.changes)}
    return {"dim": encoder.dim, "unit_length": encoder.normalize}


def _inputs(config, encoder, shape):
    if len(shape) != 3:
        return {"shape": list(shape), "standardised": encoder.standardised}
    found = {"size": list(shape[:2]), "channels": shape[2], "range": [0.0, 1.0]}
    statistics = encoder.statistics
    count = shape[2] if statistics is None else len(statistics.mean)
    found["mean"] = [0.0] * count if statistics is None else list(statistics.mean)
    found["std"] = [1.0] * count if statistics is None else list(statistics.std)
    if config.dataset.name in _ARRAYS or import_paths.is_path(config.dataset.name):
        return found
    form = datasets.image_form(config.dataset)
    names = ("resample", "crop_ratio", "fit", "background", "invert")
    return found | {name: getattr(form, name) for name in names}
