"""Every field of a sweep, declared once: arms that differ in some fields, over seeds."""

from experiments.config.fields.declaration import (
    JUDGING,
    MACHINE,
    Field,
    OneOf,
    Section,
    at_least,
)

ENGINES = ("vectorised", "here", "processes", "slurm")
METRICS = ("map_at_r", "r_precision", "precision_at_1")
METRICS += tuple(f"recall_at_{k}" for k in (1, 2, 4, 8))

SECTION = Section(
    "",
    "Arms that differ in some fields, over seeds. The config that they differ from is the section"
    " run.",
    {
        "claim": Field("", "What the sweep is to decide, as a sentence.", concerns=JUDGING),
        "source": Field("", "Who claims it.", concerns=JUDGING),
        "arms": Field(
            (),
            "Pairs of a name and the fields that differ; a name is a folder's, without spaces and"
            " slashes.",
        ),
        "settings": Field(
            (("", {}),), "Pairs like those of arms; every arm is run in every setting."
        ),
        "trials": Field(
            (),
            "Pairs of an arm and a list of its trials, the same number for every arm, where a trial"
            " lists the fields that it sets; in each setting the trial with the best score on the"
            " validation split completes the arm.",
        ),
        "trial_seeds": Field(
            (100,),
            "The seeds of every trial, over which its score is averaged; none may be in seeds.",
        ),
        "reference": Field("", "The arm that the others are compared with.", concerns=JUDGING),
        "seeds": Field(
            (0, 1, 2, 3, 4),
            "The seeds of every arm, so that weights and batches are paired; seeds may be added.",
            concerns=JUDGING,
        ),
        "also_seeds": Field(("seed",), "The fields that are set to the seed."),
        "metric": Field(
            "map_at_r",
            "The metric of evaluation.retrieval by which arms are compared.",
            OneOf(METRICS),
            concerns=JUDGING,
        ),
        "best_of": Field(
            (),
            "The arms that are settings of one method, of which the best is judged as such.",
            concerns=JUDGING,
        ),
        "engine": Field(
            "vectorised",
            "What carries out the runs: vectorised (many at once in one program), here (one after"
            " the other), processes, or slurm.",
            OneOf(ENGINES),
            concerns=MACHINE,
        ),
        "processes": Field(
            2,
            "How many processes train at a time: each one run by the engine processes, and by"
            " vectorised, on a CPU under Linux, the runs that share a program.",
            at_least(1),
            concerns=MACHINE,
        ),
    },
)


def _of_a_job(default, meaning, lowest=None):
    allowed = None if lowest is None else at_least(lowest)
    return Field(default, meaning, allowed, concerns=MACHINE)


SLURM = Section(
    "slurm",
    "What a job of the engine slurm asks of a cluster; a run of several tasks is one of several"
    " processes.",
    {
        "partition": _of_a_job("", "The partition; empty for the cluster's default."),
        "minutes": _of_a_job(60, "The minutes after which a job saves and queues again.", 1),
        "nodes": _of_a_job(1, "The nodes of a job.", 1),
        "tasks_per_node": _of_a_job(1, "The processes on each node.", 1),
        "cpus_per_task": _of_a_job(1, "The cores of each process.", 1),
        "gpus_per_node": _of_a_job(0, "The GPUs of each node.", 0),
        "memory_gb": _of_a_job(
            0, "The memory of each node, in GB; 0 for the cluster's default.", 0
        ),
        "parallel": _of_a_job(100, "The most jobs at a time.", 1),
        "grace_seconds": _of_a_job(
            90, "The seconds from the signal to the end: at least what saving takes.", 0
        ),
        "setup": _of_a_job((), "Lines of shell before the run, such as a module to load."),
    },
)
