r"""Your own photographs, from pretrained weights: a head on the features of a frozen backbone.

    python -m experiments.train --config=configs/photos.py --config.dataset.path=FOLDER \
        --workdir=runs/photos

The weights are those of EfficientNet-Lite0 on ImageNet, which are downloaded once. Without a
network, `--config.model.weights=FILE.safetensors` names a file: docs/pretrained.md.

The run begins by printing how well the features alone search, so that you see what training adds.
The variant `fine_tuned`, `--config=configs/photos.py:fine_tuned`, trains the head first and then
the backbone too, on photographs that are cropped and coloured at random.

Whole classes are held out for validation, which chooses the checkpoint and ends the training, and
others for the test: a search is for things that the encoder has never seen. To hold out photographs
of every class in place of that, set --config.dataset.split_by=image.
"""

from configs import base

# The head first; the backbone follows with a third of its rate, its early stages more slowly.
FINE_TUNED = {
    "model.freeze": "",
    "model.fixed_statistics": True,
    "augment.policy": "photos",
    "optimizer.backbone_rate": 0.3,
    "optimizer.layer_decay": 0.9,
    "optimizer.backbone_start": 50,
    "optimizer.warmup_steps": 20,
    "evaluate.every": 25,
}
VARIANTS = base.VARIANTS | {"head": {}, "fine_tuned": FINE_TUNED}


def get_config(variant: str = "head"):
    config = base.get_config()
    config.dataset.name = "folder"
    config.dataset.split_by = "class"
    config.dataset.image_size = 160
    config.batch.classes = 8
    config.batch.small_classes = "redraw"
    config.model.name = "efficientnet_lite0"
    config.model.weights = "hf://timm/tf_efficientnet_lite0.in1k"
    config.model.freeze = "backbone"
    config.model.dim = 512
    config.model.head = "principal"
    config.loss.margin = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.01
    config.train.steps = 300
    config.train.patience = 5
    config.evaluate.every = 20
    return base.with_variant(config, variant, VARIANTS)
