"""Many classes or many examples of each, for the same number of images?

    python -m experiments.sweep --config=configs/sweeps/budget.py --workdir=runs/budget

P classes of K examples, 24,000 images in all. Snell et al. 2017 and Musgrave et al. 2020 find that
more classes a batch are better. The last two arms have fewer classes in smaller batches, and more
steps.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits

IMAGES = 24_000


def batches(classes, per_class):
    """Batches of P classes x K examples, until the budget is spent."""
    steps = IMAGES // (classes * per_class)
    fields = {"batch.classes": classes, "batch.per_class": per_class}
    return fields | {"train.steps": steps, "evaluate.every": steps // 4}


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "For a fixed number of images, more classes a batch are better"
    sweep.source = "Snell et al. 2017; Musgrave et al. 2020"
    sizes = ((10, 4), (5, 8), (4, 10), (2, 20), (5, 4), (2, 4))
    sweep.arms = tuple((f"p{p}k{k}", batches(p, k)) for p, k in sizes)
    sweep.reference = "p10k4"
    return sweep
