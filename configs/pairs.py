r"""Pairs of arrays: an encoder for each, into one space, as in CLIP (Radford et al. 2021).

    python -m experiments.train --config=configs/pairs.py:clip \
        --config.dataset.path=pairs.npz --workdir=runs/pairs

The file holds `x` and `pair`, where row i of one belongs to row i of the other: each is uint8
images [n, height, width, 1 or 3] or float features [n, features], and the two shapes may differ.
`--config.model.name=conv4` gives images a conv4 each, and with `--config.model.second=mlp` the
second array an mlp. Another variant compares the two by another loss.

Seen, on the left and right halves of 1,797 digits: Recall@1 0.22 and 0.24 among 359 held-out
pairs (seed 0), by chance 0.003; docs/losses.md has the commands. 1,000 steps of it take a minute
of one core.
"""

from configs import base

VARIANTS = base.VARIANTS | {"clip": base.VARIANTS["nt_xent"]}


def get_config(variant: str = "clip"):
    config = base.get_config()
    config.dataset.name = "pairs"
    config.batch.classes = 128
    config.batch.per_class = 2
    config.model.name = "mlp"
    config.model.width = 256
    config.model.towers = 2
    return base.with_variant(config, variant, VARIANTS)
