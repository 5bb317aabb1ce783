"""Every field of a sweep, with its default: arms that differ in some fields, over seeds.

Sweeps are data, as configs are; `experiments.sweep` runs them and `experiments.report` reads them.
"""

import ml_collections


def get_config(run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A sweep over differences from the config `run`."""
    sweep = ml_collections.ConfigDict()
    sweep.claim = ""  # what the sweep is to decide, in words
    sweep.source = ""  # who claims it
    sweep.run = run  # --config.run.FIELD changes it for all arms
    # Pairs of a name and the fields that differ; names are folders, so no spaces or slashes.
    sweep.arms = ()
    sweep.settings = (("", {}),)  # every arm is run in every setting
    sweep.reference = ""  # the arm that the others are compared with
    sweep.seeds = (0, 1, 2, 3, 4)  # the same for every arm: weights and batches are paired
    sweep.also_seeds = ("seed",)  # the fields that are set to the seed
    sweep.metric = "map_at_r"  # of evaluation.retrieval
    sweep.best_of = ()  # arms that are settings of one method: the best of them is judged as such
    sweep.engine = "vectorised"  # or here, processes
    sweep.processes = 2  # of the engine of that name
    return sweep
