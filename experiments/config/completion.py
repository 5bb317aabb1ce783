"""Gives a value to the fields that a config leaves to a policy, or to its weights.

A config is completed where it enters: when a run is launched, a sweep is planned, or a saved config
is read. All that follows is given a completed one. So `config.json` shows the numbers that were
used, and a later version that has another policy changes nothing about the run.
"""

from typing import Any

import ml_collections

from experiments.config import fields, preprocessing, settings
from experiments.config.fields import augment
from triplet_jax.models import published

_AS_BEFORE = published.Preprocessing((), (), resample="bilinear", crop_ratio=1.0)
"""How pictures are read where no weights expect anything."""


def completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with a value for each field of `augment` and `dataset` that has none of its own.

    * A field of `augment` that is not set gets the value that `augment.policy` gives it, else is
      off.
    * `dataset.resample="auto"` and `dataset.crop_ratio=0` become what the weights of the backbone
      expect, or "bilinear" and 1 where the encoder starts from no weights. They stay where the
      data are no image files.

    A config that makes no sense is left as it is, for `check` to refuse. Of a completed config this
    gives an equal one.
    """
    missing = _augmentation(config) | _reading(config)
    if not missing:
        return config
    made = ml_collections.ConfigDict(config).copy_and_resolve_references()
    made.update_from_flattened_dict(missing)
    frozen = isinstance(config, ml_collections.FrozenConfigDict)
    return ml_collections.FrozenConfigDict(made) if frozen else made


def _augmentation(config) -> dict[str, Any]:
    c = config.augment
    policy = augment.POLICIES.get(c.policy, {})
    return {
        f"augment.{name}": policy.get(name, field.type())
        for name, field in augment.SECTION.fields.items()
        if field.default is None and c[name] is None
    }


def _reading(config) -> dict[str, Any]:
    c = config.dataset
    open_fields = {"resample": "auto", "crop_ratio": 0.0}
    values = settings.flat(config)
    expected = preprocessing.expected(config) or _AS_BEFORE
    return {
        f"dataset.{name}": getattr(expected, name)
        for name, usual in open_fields.items()
        if c[name] == usual
        and isinstance(c.name, str)
        and not any(one.failing(values) for one in fields.FIELDS[f"dataset.{name}"].when)
    }
