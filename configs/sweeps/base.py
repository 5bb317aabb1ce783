"""The sweep that others list their differences from: arms that differ in some fields, over seeds.

Sweeps are data, as configs are; `experiments.sweep` runs them and `experiments.report` reads them.
`experiments/config/fields/sweep.py` declares every field of a sweep, and docs/fields.md lists them.
"""

import ml_collections

from experiments.config import defaults, fields


def get_config(run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A sweep over differences from the config `run`."""
    sweep = defaults.of_section(fields.SWEEP)
    sweep.run = run  # --config.run.FIELD changes it for all arms
    sweep.slurm = slurm()
    return sweep


def slurm() -> ml_collections.ConfigDict:
    """What a job asks of a cluster."""
    return defaults.of_section(fields.SLURM)


def check_data(data: str, allowed: tuple[str, ...] = ("digits", "omniglot")) -> None:
    """Refuses what no data set of a sweep is called.

    Raises:
      ValueError: saying what may stand after the colon.
    """
    if data not in allowed:
        raise ValueError(
            f"{data!r} is not known; after the colon may stand one of {', '.join(allowed)}"
        )
