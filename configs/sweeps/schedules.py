"""Does a curriculum over the hardness of triplets beat hard or semi-hard mining?

    make compare        # digits, clean and with 40% wrong labels
    python -m experiments.sweep --config=configs/sweeps/schedules.py:omniglot --workdir=runs/o

All three schedules move the negative's quantile of hardness between the middle of the anchor's
negatives and the hardest, by the same pacing: one upwards, one downwards, and one shuffled.
"""

from configs import digits, omniglot
from configs.base import hardness
from configs.sweeps import base


def small_digits():
    """An MLP of digits that trains in seconds: for sweeps of many runs."""
    run = digits.get_config()
    run.model.name = "mlp"
    run.model.width = 256
    run.train.steps = 600
    run.evaluate.every = 100
    run.evaluate.episodes = 200
    run.evaluate.checkpoint = "last"
    run.log.every = 20
    run.log.telemetry_every = 100
    return run


def small_omniglot():
    """A narrow conv4 of Omniglot, without turned classes: minutes a run."""
    run = omniglot.get_config()
    run.dataset.turns_as_classes = False
    run.model.width = 16
    run.train.steps = 400
    run.evaluate.every = 400
    run.evaluate.episodes = 200
    run.evaluate.checkpoint = "last"
    run.log.telemetry_every = 100
    return run


def get_config(data: str = "digits"):
    base.check_data(data)
    if data == "omniglot":
        sweep = base.get_config(omniglot.get_config())
        sweep.seeds = (0, 1, 2)
    else:
        sweep = base.get_config(small_digits())
        sweep.settings = (("clean", {}), ("noise40", {"dataset.label_noise": 0.4}))
        sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.claim = "A curriculum over triplet hardness beats hard and semi-hard mining"
    sweep.source = "the project's own question; for examples, Wu et al. 2021"
    sweep.arms = (
        ("batch_all", {"mining.miner": "batch_all"}),
        ("batch_hard", {"mining.miner": "batch_hard"}),
        ("semi_hard", {"mining.miner": "semi_hard"}),
        ("curriculum", hardness("curriculum")),
        ("anti_curriculum", hardness("anti_curriculum")),
        ("random_pacing", hardness("random")),
    )
    sweep.reference = "semi_hard"
    sweep.best_of = ("curriculum", "anti_curriculum", "random_pacing")
    return sweep
