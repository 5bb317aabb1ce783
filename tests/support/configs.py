"""Configs of tests: that of the digits, with other values in some fields."""

import ml_collections

from configs import base, digits


def config(**fields) -> ml_collections.ConfigDict:
    """The config of the digits with these fields, whose names have `__` in place of dots."""
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return base.with_differences(digits.get_config(), named)


def scheduled(field, miner="quantile", **record) -> ml_collections.ConfigDict:
    """The config of the digits with a schedule of a field, called `one`."""
    made = config(mining__miner=miner)
    made.schedules.one = base.schedule(field, **record)
    return made
