"""Refuses a study that makes no sense before anything of it is written."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import ml_collections

from experiments.config import datasets, fields
from experiments.config.fields import declaration
from experiments.run.setup import Setup
from experiments.sweeps import plan, remembering, vectorised
from experiments.tuning import space as spaces
from experiments.tuning import trials
from triplet_jax import errors
from triplet_jax.runs import files


def check(study: ml_collections.ConfigDict) -> spaces.Space:
    """Checks the fields of a study, and the config at every corner of its space.

    Args:
      study: its config; see `configs.tune.base`.

    Returns:
      The space.

    Raises:
      InputError: a field of the study is not valid, or a corner is refused by the config's fields.
    """
    fields.TUNE.check(study)
    plan.check_seeds(study.seeds)
    plan.check_seeds_differ(study)
    _check_pruner(study)
    space = spaces.parse(study.space)
    _check_comparable(study, space)
    for point in space.corners():
        with _at(point):
            trials.check(study, trials.config_at(study, space, point, study.seeds[0]))
    return space


def check_data(study: ml_collections.ConfigDict, space: spaces.Space) -> None:
    """Opens the data, and builds the model with each option of the space.

    Raises:
      InputError: a trial could not be trained, or the validation split gives no score.
    """
    first, *others = space.corners()
    for point in [first, *(p for p in others if _differs_by_an_option(space, first, p))]:
        with _at(point):
            config = trials.config_at(study, space, point, study.seeds[0])
            setup = Setup(config, pathlib.Path(), vectorised.dataset(config))
            setup.check()
            if not datasets.can_score(config, setup.validation):
                raise errors.InputError(
                    f"the validation split has {len(setup.validation.labels)} examples, which give"
                    f" no {study.metric} to judge trials by: raise dataset.validation_fraction. The"
                    " test split is not for that."
                )


def _differs_by_an_option(space, first, point):
    different = [part for part in space.parts if point[part.name] != first[part.name]]
    return len(different) == 1 and isinstance(different[0], spaces.Options)


def _check_pruner(study):
    if study.pruner == "none":
        return
    if study.engine != "here":
        raise errors.InputError(
            f"pruner={study.pruner!r} does not go with engine={study.engine!r}, whose trials end"
            " together: choose engine='here', or pruner='none'."
        )
    if len(study.seeds) > 1:
        raise errors.InputError(
            f"pruner={study.pruner!r} does not go with seeds={tuple(study.seeds)}: it judges a"
            " trial before its later seeds have begun. Give one seed, or pruner='none'."
        )


def _check_comparable(study, space):
    """Refuses fields by which trials are judged differently, or get budgets unseen by a pruner."""
    set_by_parts = {n for part in space.parts for end in part.ends for n in part.differences(end)}
    for name in sorted(set_by_parts):
        if fields.concerns(name) != declaration.TRAINING:
            why = "trials would not be judged alike, or learn the same"
        elif name in study.also_seeds:
            why = "it is set to the seed of a trial"
        elif name == "train.steps" and study.pruner != "none":
            why = f"pruner={study.pruner!r} compares trials of as many steps"
        else:
            continue
        raise errors.InputError(f"space: {name!r} may not be searched: {why}.")


@contextlib.contextmanager
def _at(point) -> Iterator[None]:
    try:
        yield
    except errors.InputError as error:
        where = ", ".join(f"{name}={value!r}" for name, value in point.items())
        raise errors.InputError(f"space, at {where}: {error}") from error


def remember(study: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes `study.json` of a new study, or checks that the folder is of this one.

    Args:
      study: its config.
      workdir: of the study.

    Raises:
      InputError: the folder holds another study; the message names the fields that differ.
    """
    path = workdir / "study.json"
    now = json.loads(study.to_json())
    remembering.before(path, fields.TUNE, now, needed=("space", "run"), grows="trials")
    files.write_json(path, now)
