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
    sweep.engine = "vectorised"  # or here, processes, slurm
    sweep.processes = 2  # of the engine of that name
    sweep.slurm = slurm()  # of the engine of that name
    return sweep


def check_data(data: str, allowed: tuple[str, ...] = ("digits", "omniglot")) -> None:
    """Refuses what no data set of a sweep is called.

    Raises:
      ValueError: saying what may stand after the colon.
    """
    if data not in allowed:
        raise ValueError(
            f"{data!r} is not known; after the colon may stand one of {', '.join(allowed)}"
        )


def slurm() -> ml_collections.ConfigDict:
    """What a job asks of a cluster; a run of several tasks is one of several processes."""
    slurm = ml_collections.ConfigDict()
    slurm.partition = ""  # empty: the cluster's default
    slurm.minutes = 60  # after which a job saves, and waits for its next turn
    slurm.nodes = 1
    slurm.tasks_per_node = 1
    slurm.cpus_per_task = 1
    slurm.gpus_per_node = 0
    slurm.memory_gb = 0  # 0: the cluster's default
    slurm.parallel = 100  # the most jobs at a time
    slurm.grace_seconds = 90  # from the signal to the end: at least what saving takes
    slurm.setup = ()  # lines of shell before the run, such as a module to load
    return slurm
