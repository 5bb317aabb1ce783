"""Many classes or many examples of each, for the same number of images?

    python -m experiments.sweep --config=configs/sweeps/budget.py --workdir=runs/budget
    python -m experiments.sweep --config=configs/sweeps/budget.py:omniglot --workdir=runs/o

P classes of K examples, 24,000 images in all on digits and 327,680 on Omniglot. Snell et al. 2017
and Musgrave et al. 2020 find that more classes a batch are better. On digits the last two arms have
fewer classes in smaller batches, and more steps. On Omniglot the larger batch has half the steps.
"""

from configs import omniglot
from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def batches(classes, per_class, images):
    """Batches of P classes x K examples, until the budget of images is spent."""
    steps = images // (classes * per_class)
    fields = {"batch.classes": classes, "batch.per_class": per_class}
    return fields | {"train.steps": steps, "evaluate.every": steps // 4}


def whole_omniglot():
    """The usual conv4 of Omniglot, with the margin and the rate that its best runs have."""
    run = omniglot.get_config()
    run.loss.margin = 0.2
    run.optimizer.learning_rate = 2e-3
    return run


def get_config(data: str = "digits"):
    base.check_data(data)
    if data == "omniglot":
        run, images = whole_omniglot(), 327_680
        sizes = ((32, 4), (64, 4))
    else:
        run, images = small_digits(), 24_000
        sizes = ((10, 4), (5, 8), (4, 10), (2, 20), (5, 4), (2, 4))
    sweep = base.get_config(run)
    sweep.claim = "For a fixed number of images, more classes a batch are better"
    sweep.source = "Snell et al. 2017; Musgrave et al. 2020"
    sweep.arms = tuple((f"p{p}k{k}", batches(p, k, images)) for p, k in sizes)
    sweep.reference = sweep.arms[0][0]
    return sweep
