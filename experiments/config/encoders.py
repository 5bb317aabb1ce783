"""From the fields of a config to the encoder of a run."""

import inspect

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from experiments.config import (
    augmentations,
    components,
    fields,
    import_paths,
    naming,
    preprocessing,
)
from triplet_jax import data, errors, models
from triplet_jax.devices import collectives
from triplet_jax.models import augmented, stages, standardise


def encoder(
    config: ml_collections.ConfigDict,
    input_shape: tuple[int, ...],
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> nn.Module:
    """The model, whose batch statistics are those of all devices.

    Args:
      config: of the run.
      input_shape: of one input.
      pair_shapes: of either side of a pair; None where examples are no pairs.

    Raises:
      InputError: a backbone, or `evaluate.augment`, does not take inputs of this shape.
    """
    c = config.model
    _check_augment(config.evaluate.augment, input_shape)
    shapes = pair_shapes or (input_shape, input_shape)
    features = [standardises(config, shape) for shape in shapes]
    first = _tower(config, "name", c.name, shapes[0], features[0])
    if c.towers == 1:
        return first
    second = _tower(config, "second", c.second or c.name, shapes[1], features[1])
    return models.TwoTowers(first, second, pair_shapes)


def judged(config: ml_collections.ConfigDict, encoder: nn.Module) -> nn.Module:
    """What a run is judged by: its encoder, with the copies of `evaluate.augment`, if any."""
    changes = config.evaluate.augment
    return models.Augmented(encoder, changes) if changes else encoder


def _check_augment(changes, input_shape):
    with naming.rewriting(lambda message: errors.renamed(message, {"changes": "evaluate.augment"})):
        augmented.check(changes)
        augmented.check_shape(changes, input_shape)


def standardises(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> bool:
    """Whether the encoder standardises inputs of this shape: never images; features by default."""
    return config.dataset.standardise and len(shape) == 1


def input_statistics(config: ml_collections.ConfigDict, everything: data.Dataset) -> dict:
    """What the encoder standardises inputs by, by the names of its layers; {} if it does not."""
    shapes = everything.pair_shapes or (everything.input_shape,)
    if not any(standardises(config, shape) for shape in shapes):
        return {}
    train = everything.only("train").inputs
    if everything.pair_shapes is None:
        found = [standardise.statistics(train)] * config.model.towers
    else:
        # Rows of the two arrays alternate, padded to one length.
        rows = [train[i::2, : shape[0]] for i, shape in enumerate(shapes)]
        found = [
            standardise.statistics(x) if standardises(config, shape) else None
            for x, shape in zip(rows, shapes, strict=True)
        ]
    layers = [{} if one is None else {standardise.LAYER: one} for one in found]
    if config.model.towers == 1:
        return layers[0]
    return dict(zip(("first", "second"), layers, strict=True))


def keeps_features(config: ml_collections.ConfigDict) -> bool:
    """Whether an image has one vector of features in all of training, which is worth keeping.

    It has if the backbone has weights of its own and none of them moves, and no image is changed.
    """
    c = config.dataset
    others = config.model.towers == 2 or c.name == "pairs" or config.batch.scores
    changed = c.mirrored_as_classes or c.turns_as_classes or augmentations.changes_something(config)
    frozen = config.model.freeze == stages.WHOLE and preprocessing.has_weights(config)
    return frozen and not changed and not others


def _tower(config, field, name, shape, standardised):
    c = config.model
    backbone = components.backbone(f"model.{field}", name, shape)
    if name == backbone != "mlp" and len(shape) != 3:
        raise errors.InputError(
            f"model.{field}={name!r} needs images, but an input has shape {shape}. Set"
            f" model.{field}='mlp'."
        )
    with naming.as_fields("model"):
        made = models.encoder(
            backbone,
            dim=c.dim,
            normalize=c.normalize,
            norm=c.norm,
            freeze=c.freeze,
            fixed_statistics=c.fixed_statistics,
            dropout=c.dropout,
            projection=c.projection,
            projection_dim=c.projection_dim,
            standardised=standardised,
            statistics=preprocessing.statistics(config, field, shape),
            axis_name=collectives.DEVICES,
            **_settings(config, field, name),
        )
    if len(shape) == 3 and hasattr(made.backbone, "check_size"):
        other = f"Set dataset.image_size, or model.{field} to another backbone."
        with naming.with_advice(other):
            made.backbone.check_size(shape[:2])
    return made


# A backbone without a type computes in that of its parameters, float32.
_TYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def _settings(config, field, name):
    """The fields that the backbone takes, by name.

    Raises:
      InputError: a field is set that the backbone does not take.
    """
    c = config.model
    takes = inspect.signature(components.find(f"model.{field}", name)).parameters
    worked_out = {"stem": preprocessing.stem(config), "dtype": _TYPES[c.dtype]}
    given = {}
    for setting in ("width", "stem", "dtype", "remat", "stochastic_depth"):
        is_set = c[setting] != fields.FIELDS[f"model.{setting}"].default
        if setting in takes:
            given[setting] = worked_out.get(setting, c[setting])
        # A backbone of the user's own may always leave the width out.
        elif is_set and not (setting == "width" and import_paths.is_path(name)):
            raise errors.InputError(
                f"model.{setting}={c[setting]!r} has no effect with model.{field}={name!r}, which"
                f" takes no {setting}. Leave it out."
            )
    return given
