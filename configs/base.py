"""Every field of an experiment, with its default. Other configs list their differences.

Configs are data: nothing is built here. `experiments.build` turns fields into objects
and refuses values that make no sense.
"""

import ml_collections

# What may follow the colon in --config=configs/digits.py:semi_hard.
VARIANTS = {
    "random": {"mining.miner": "random"},
    "batch_all": {"mining.miner": "batch_all"},
    "batch_hard": {"mining.miner": "batch_hard"},
    "semi_hard": {"mining.miner": "semi_hard"},
}


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the initial weights, the batches and every random draw

    config.dataset = ml_collections.ConfigDict()
    # digits, folder, arrays, or the name of an image data set of tensorflow-datasets
    config.dataset.name = "digits"
    config.dataset.path = ""  # of a folder of class folders, or of an .npz file
    config.dataset.data_dir = ""  # of tensorflow-datasets; empty for its own default
    config.dataset.image_size = 64  # pixels a side that images are brought to
    config.dataset.channels = 3  # 1 for grey
    config.dataset.invert = False  # exchange black and white
    config.dataset.split_by = "image"  # image, class; official for tensorflow-datasets
    config.dataset.test_fraction = 0.2
    config.dataset.validation_fraction = 0.1
    config.dataset.split_seed = 0
    config.dataset.turns_as_classes = False  # quarter turns of a training class are new ones
    config.dataset.bad_images = "refuse"  # or skip
    config.dataset.placement = "device"  # all of it on the device, or stream from disk
    config.dataset.workers = 2  # processes that load a stream; 0 for threads

    config.batch = ml_collections.ConfigDict()
    config.batch.classes = 32  # P, over all devices
    config.batch.per_class = 4  # K
    config.batch.small_classes = "refuse"  # or drop, or redraw

    config.augment = ml_collections.ConfigDict()  # of images; 0 or False is off
    config.augment.crop = 0  # shift by whole pixels, up to this many
    config.augment.flip = False  # left and right
    config.augment.turn = False  # by a random quarter
    config.augment.shift = 0.0  # pixels
    config.augment.rotate = 0.0  # degrees
    config.augment.scale = 0.0  # 0.1 is about 10%
    config.augment.shear = 0.0  # degrees
    config.augment.noise = 0.0  # standard deviation; a white pixel is 1

    config.model = ml_collections.ConfigDict()
    config.model.name = "conv4"  # mlp, conv4, resnet18, resnet50
    config.model.width = 64  # channels of conv4 and of a resnet's first stage, units of mlp
    config.model.dim = 64  # of the embedding
    config.model.normalize = True  # embeddings of length 1
    config.model.norm = "batch"  # or group

    config.mining = ml_collections.ConfigDict()
    config.mining.miner = "semi_hard"  # a name in mining.MINERS
    config.mining.tile_size = 0  # anchors at a time; 0 for all

    config.loss = ml_collections.ConfigDict()
    config.loss.metric = "euclidean"  # a name in distances.METRICS
    config.loss.penalty = "hinge"  # or soft_margin
    config.loss.margin = 0.1
    config.loss.average = "active"  # or valid

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adam"  # adam, adamw, sgd
    config.optimizer.learning_rate = 1e-3  # the peak
    config.optimizer.warmup_steps = 0
    config.optimizer.decay = "cosine"  # to 0 at the last step; or constant
    config.optimizer.weight_decay = 0.0  # adamw
    config.optimizer.momentum = 0.9  # sgd
    config.optimizer.clip_norm = 0.0  # of the gradient; 0 is off
    config.optimizer.average_decay = 0.0  # moving average of the weights; 0 is off

    config.train = ml_collections.ConfigDict()
    config.train.steps = 1000

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.every = 500  # steps between validations, each with a checkpoint
    config.evaluate.ways = 20  # of few-shot episodes; fewer if there are fewer classes
    config.evaluate.episodes = 1000

    config.log = ml_collections.ConfigDict()
    config.log.every = 10
    config.log.tensorboard = False
    return config


def with_variant(
    config: ml_collections.ConfigDict, variant: str, variants: dict[str, dict] = VARIANTS
) -> ml_collections.ConfigDict:
    """The config with the differences that a variant's name stands for."""
    if variant not in variants:
        raise ValueError(
            f"variant {variant!r} is not known; after the colon may stand one of"
            f" {', '.join(sorted(variants))}"
        )
    config.update_from_flattened_dict(variants[variant])
    return config
