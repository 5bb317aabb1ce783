"""FaceNet's batch of 1,800, in parts, or many small batches of the same images?

    python -m experiments.sweep --config=configs/sweeps/large_batch.py --workdir=runs/large_batch

Schroff et al. 2015 take 1,800 so that semi-hard negatives are found. All arms see 36,000 images
and try the same learning rates, since a large batch takes few steps.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_omniglot

IMAGES = 36_000


def batches(classes, per_class, parts=1):
    steps = IMAGES // (classes * per_class)
    return {
        "batch.classes": classes,
        "batch.per_class": per_class,
        "train.micro_batches": parts,
        "train.steps": steps,
        "evaluate.every": steps,
    }


def get_config():
    sweep = base.get_config(small_omniglot())
    sweep.claim = "For as many images, batches of 1,800 beat small ones"
    sweep.source = "Schroff et al. 2015 give no comparison; a folk claim"
    sweep.settings = tuple((f"rate{r:g}", {"optimizer.learning_rate": r}) for r in (1e-3, 4e-3))
    sweep.arms = (
        ("p90k20", batches(90, 20, parts=10)),
        ("p450k4", batches(450, 4, parts=10)),
        ("p30k4", batches(30, 4)),
    )
    sweep.reference = "p30k4"
    sweep.seeds = (0, 1, 2)
    return sweep
