"""What training adds to pretrained features, on photographs of classes that it has never seen.

    python -m experiments.sweep --config=configs/sweeps/photos.py:heads --workdir=runs/photos \
        --config.run.dataset.path=FOLDER --config.run.model.weights=FILE.safetensors

FOLDER is the Grocery Store data set: see `benchmarks.grocery`. `heads` compares first weights,
losses and schedules of a head on the features of a frozen EfficientNet-Lite0, with clean labels and
with 40% wrong ones; `official` trains some by the published split, of which all parts have all
classes; `copies` asks whether the mean over a photograph and its mirror image is better than the
photograph; `fine_tuned` trains the backbone too.
"""

from configs import base as runs
from configs import photos
from configs.sweeps import base

_RANDOM = {"model.head": "random", "optimizer.learning_rate": 1e-3}
_OTHERS = ("batch_hard", "curriculum", "anti_curriculum", "supcon", "proxy_anchor")


def get_config(part: str = "heads"):
    base.check_data(part, ("heads", "official", "copies", "fine_tuned"))
    of_heads = part != "fine_tuned"
    run = photos.get_config("head" if of_heads else "fine_tuned")
    split = "official" if part == "official" else "zero_shot"
    run.dataset.name = f"benchmarks.grocery:{split}"
    run.dataset.crop_ratio = 1.0  # the photographs are middle squares already
    run.batch.classes = 12
    run.train.patience = 0
    run.evaluate.checkpoint = "last"
    run.evaluate.every = 150
    run.train.steps = 300 if of_heads else 150
    sweep = base.get_config(run)
    # Heads learn from kept features, where one step for all of a group pays.
    sweep.engine = "vectorised" if of_heads else "here"
    sweep.seeds = (0, 1, 2)
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.source = "Musgrave et al. 2020"
    if of_heads:
        sweep.claim = "A head on pretrained features retrieves better than they do"
        sweep.reference = "semi_hard"
        sweep.arms = (
            ("semi_hard", {}),
            ("random_head", _RANDOM),
            *((name, _of(name)) for name in _OTHERS),
        )
        sweep.settings = (("clean", {}), ("noise_40", {"dataset.label_noise": 0.4}))
        if part == "official":
            sweep.arms = (("semi_hard", {}), ("batch_hard", _of("batch_hard")))
            sweep.settings = (("", {}),)
        if part == "copies":
            sweep.claim = "The mean over a photograph and its mirror image retrieves better"
            sweep.source = "Shanmugam et al. 2021"
            sweep.arms = (("semi_hard", {}), ("flip", {"evaluate.augment": ("flip",)}))
            sweep.settings = (("", {}),)
    else:
        sweep.claim = "Fine-tuning all of a pretrained encoder beats a head on its features"
        sweep.reference = "head_then_all"
        sweep.arms = (
            ("head_then_all", {}),
            ("all_at_once", {"optimizer.backbone_start": 0}),
            ("random_head_then_all", _RANDOM),
        )
    return sweep


def _of(name):
    """The differences of a variant, and for proxies how many classes are trained."""
    return runs.VARIANTS[name] | ({"loss.num_classes": 25} if name == "proxy_anchor" else {})
