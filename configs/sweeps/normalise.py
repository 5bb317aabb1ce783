"""Embeddings of length 1, or of any length?

    python -m experiments.sweep --config=configs/sweeps/normalise.py --workdir=runs/normalise

FaceNet normalises (Schroff et al. 2015); Hermans et al. 2017 do not, with a soft margin, and find
that better. Embeddings of any length are in other units, so a margin means something else there.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits

MARGINS = (0.1, 0.3, 1.0)


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Embeddings of length 1 are better than those of any length"
    sweep.source = "Schroff et al. 2015; Hermans et al. 2017 claim the opposite for batch-hard"
    sweep.settings = tuple(
        (miner, {"mining.miner": miner}) for miner in ("semi_hard", "batch_hard")
    )
    hinges = tuple(
        (f"{name}-{margin:g}", {"model.normalize": normalize, "loss.margin": margin})
        for name, normalize in (("unit", True), ("free", False))
        for margin in MARGINS
    )
    soft = {"model.normalize": False, "loss.penalty": "soft_margin", "loss.average": "valid"}
    sweep.arms = (*hinges, ("free-soft", soft))
    sweep.reference = "unit-0.3"
    sweep.best_of = ("free-0.1", "free-0.3", "free-1", "free-soft")
    return sweep
