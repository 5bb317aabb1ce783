"""Config files that a study writes: the best config, and the sweep that compares it with others."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.config import defaults, settings
from experiments.sweeps import plan
from experiments.tuning.outcome import Outcome

_BEST = '''\
"""The best trial of a study, number {number}, with a {value} of {score:.4f}.

    python -m experiments.train --config={path} --workdir=runs/best

experiments.tune wrote this file after
{budget}.
The test split had no part in the choice.
"""

from configs import base

DIFFERENCES = {differences}


def get_config():
    return base.with_differences(base.get_config(), DIFFERENCES)
'''

_CONFIRM = '''\
"""Is the best config of a study better than the one that it began with, on seeds of its own?

    python -m experiments.sweep --config={path} --workdir={path.parent}/confirm

experiments.tune wrote this file. The runs are judged on the test split, which had no part in the
choice, and no trial had these seeds.
"""

from configs import base
from configs.sweeps import base as sweeps

RUN = {run}
BEST = {best}


def get_config():
    sweep = sweeps.get_config(base.with_differences(base.get_config(), RUN))
    sweep.claim = "The best of {trials} trials is better than the config that the study began with"
    sweep.source = (
        "chosen by its {value} from "
        "{budget}"
    )
    sweep.arms = (("default", {{}}), ("best", BEST))
    sweep.reference = "default"
    sweep.seeds = {seeds}
    sweep.also_seeds = {also_seeds}
    sweep.metric = {metric!r}
    sweep.engine = {engine!r}
    return sweep
'''


def best(found: Outcome, point: Mapping[str, Any], path) -> str:
    """The file of the best config, with the first seed of its trial.

    Args:
      found: what the study found.
      point: the fields that the best point sets.
      path: of the file.
    """
    trial, study = found.best, found.study
    seeds = dict.fromkeys(study.also_seeds, study.seeds[0])
    # Not completed: what a policy or the weights bring, they bring to this config, too.
    config = plan.config_of(study.run, {**point, **seeds}, "space")
    return _BEST.format(
        value=found.value,
        score=found.ranked.value.iloc[0],
        number=trial.number,
        budget=found.budget,
        path=path,
        differences=_written(differences(config)),
    )


def confirm(found: Outcome, best: Mapping[str, Any], path) -> str:
    """The file of a sweep that compares the best point with the study's config.

    Args:
      found: what the study found.
      best: the fields that the best point sets.
      path: of the file.
    """
    study = found.study
    return _CONFIRM.format(
        value=found.value,
        trials=len(found.table),
        budget=found.budget,
        path=path,
        run=_written(differences(study.run)),
        best=_written(best),
        seeds=fresh_seeds(study),
        also_seeds=tuple(study.also_seeds),
        metric=study.metric,
        engine=study.engine,
    )


def fresh_seeds(study: ml_collections.ConfigDict) -> tuple[int, ...]:
    """The first seeds that no trial had, as many as the study asks for."""
    every = range(len(study.seeds) + study.fresh_seeds)
    return tuple(seed for seed in every if seed not in study.seeds)[: study.fresh_seeds]


def differences(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields in which a config differs from the defaults, as `with_differences` takes them."""
    usual = settings.flat(defaults.like(config))
    of_schedules = {
        f"schedules.{name}": record.to_dict() for name, record in config.schedules.items()
    }
    plain = {
        name: value
        for name, value in settings.flat(config).items()
        if not name.startswith("schedules.") and value != usual.get(name)
    }
    return plain | of_schedules


def _written(fields):
    lines = (f"    {name!r}: {value!r},\n" for name, value in fields.items())
    return f"{{\n{''.join(lines)}}}"
