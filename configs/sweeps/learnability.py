"""Do batches of the most learnable classes save steps, and do they save time?

    python -m experiments.train --config=configs/omniglot.py:semi_hard --config.seed=100 \\
      --config.dataset.turns_as_classes=False --config.model.width=16 --config.train.steps=2000 \\
      --workdir=runs/reference
    python -m experiments.score --runs=runs/reference --output=runs/scores.npz
    python -m experiments.sweep --config=configs/sweeps/learnability.py --workdir=runs/learnable \\
      --config.engine=processes --config.processes=2

Evans et al. 2024 (JEST, https://arxiv.org/abs/2406.17711): they save 13 times the steps, and 10
times the computation. Here a batch takes 32 out of 64 or 128 classes of Omniglot. To choose them, a
step embeds the images of all. A forward pass is a third of the computation of a step, so that
choosing out of 128 costs 2.3 times as much as drawing. The arm `longer` spends that on more steps
of random batches. The reference run has another seed and five times the steps.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_omniglot


def get_config():
    run = small_omniglot()
    run.batch.scores = "runs/scores.npz"
    sweep = base.get_config(run)
    sweep.claim = "Batches of the most learnable classes save steps and computation"
    sweep.source = "Evans et al. 2024"
    sweep.arms = (
        ("random", {}),
        ("learnable_of_64", {"batch.choose_from": 64}),
        ("learnable_of_128", {"batch.choose_from": 128}),
        ("longer", {"train.steps": 933, "evaluate.every": 933}),
    )
    sweep.reference = "random"
    return sweep
