"""Every field of an experiment, with its default. Other configs list their differences.

Configs are data: nothing is built here. `experiments.build` turns fields into objects
and refuses values that make no sense.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from experiments.config import import_paths
from triplet_jax import contrastive, errors, losses, mining


def hardness(order: str, **differences) -> dict:
    """The fields of mining whose negatives go from the middle of the anchor's to the hardest."""
    record = {"field": "mining.knobs.hardness", "order": order, "start": 0.5, "end": 1.0}
    return {"mining.miner": "quantile", "schedules.hardness": record | differences}


_COSINE = {"loss.metric": "cosine"}
_FREE_LENGTH = {"loss.metric": "dot", "model.normalize": False}
_PROXIES = {"loss.proxies": "references"}

# Losses that are no triplet losses, and proxies or class weights beside them.
CONTRASTIVE = {
    "contrastive": {"loss.name": "pairs"},
    "lifted": {"loss.name": "lifted"},
    "n_pairs": _FREE_LENGTH | {"loss.name": "n_pairs"},
    "nt_xent": _COSINE | {"loss.name": "info_nce"},
    "supcon": _COSINE | {"loss.name": "supervised_contrastive"},
    "multi_similarity": _COSINE | {"loss.name": "multi_similarity"},
    "circle": _COSINE | {"loss.name": "circle", "loss.knobs.margin": 0.4, "loss.knobs.scale": 80.0},
    "proxy_nca": _COSINE | _PROXIES | {"loss.name": "info_nce", "loss.knobs.temperature": 1 / 18},
    "proxy_anchor": _COSINE | {"loss.name": "proxy_anchor", "loss.proxies": "anchors"},
    "softmax": _FREE_LENGTH | _PROXIES | {"loss.name": "info_nce", "loss.knobs.temperature": 1.0},
    "arcface": _COSINE | _PROXIES | {"loss.name": "arcface"},
}

# A miner with the hinge, or a penalty with the miner that its paper has.
TRIPLET = {miner: {"mining.miner": miner} for miner in mining.MINERS} | {
    # The hinge is zero for easy triplets, and an average over them learns nothing.
    "easy": {"mining.miner": "easy", "loss.penalty": "soft_margin", "loss.average": "valid"},
    "semi_hard_tfa": {"mining.miner": "semi_hard_tfa", "loss.average": "valid"},
    "anchor_swap": {"mining.miner": "batch_hard", "loss.penalty": "anchor_swap"},
    "margin_based": {
        "mining.miner": "distance_weighted",
        "loss.penalty": "margin_based",
        "loss.margin": 0.2,
        "loss.learned": ("beta",),
    },
    "ratio": {"mining.miner": "batch_hard", "loss.penalty": "ratio"},
    "selectively_contrastive": {
        "mining.miner": "easy_positive_hard",
        "loss.penalty": "selectively_contrastive",
        "loss.metric": "cosine",
    },
    "soft_margin": {"mining.miner": "batch_hard", "loss.penalty": "soft_margin"},
    "squared_hinge": {"mining.miner": "semi_hard", "loss.penalty": "squared_hinge"},
    "curriculum": hardness("curriculum"),
    "anti_curriculum": hardness("anti_curriculum"),
    "random_pacing": hardness("random"),
    "self_paced": hardness("curriculum", kind="self_paced"),
}
# Its paper's loss has the name alone.
TRIPLET["multi_similarity_mined"] = TRIPLET.pop("multi_similarity")

# No labels: two random views of an image are a class, and all other images negatives.
_TWO_VIEWS = _COSINE | {
    "dataset.images_as_classes": True,
    "batch.classes": 64,
    "batch.per_class": 2,
    "batch.small_classes": "redraw",
    "loss.name": "info_nce",
    "loss.knobs.temperature": 0.5,
    # Views that differ little tell nothing of what images have in common.
    "augment.rotate": 20.0,
    "augment.shift": 1.0,
    "augment.scale": 0.2,
    "augment.shear": 15.0,
    "augment.noise": 0.1,
}
UNLABELLED = {
    "simclr": _TWO_VIEWS,
    "moco": _TWO_VIEWS
    | {
        "optimizer.average_decay": 0.9,  # of a short run; the paper's long ones have 0.999
        "memory.size": 1024,
        "memory.of_average": True,
    },
    # Each view of an image has an encoder of its own.
    "clip": _TWO_VIEWS | {"loss.knobs.temperature": 0.1, "model.towers": 2},
}

# What is added to an encoder or to a loss while it is trained.
ADDITIONS = {
    "dropout": {"model.dropout": 0.2},
    "projection": CONTRASTIVE["nt_xent"] | {"model.projection": 64},
    "matryoshka": {"loss.nested_dims": (4, 8, 16, 32, 64)},
    "norm": CONTRASTIVE["n_pairs"] | {"loss.norm_weight": 0.01},
    "spread": {"loss.spread_weight": 1.0},
}

# What may follow the colon in --config=configs/digits.py:semi_hard.
VARIANTS = {
    **TRIPLET,
    "grad_cache": {"batch.per_class": 16, "train.micro_batches": 4},
    "offline": {"offline.every": 200},
    "xbm": {"memory.size": 1024, "memory.start": 100},
    **ADDITIONS,
    **CONTRASTIVE,
    **UNLABELLED,
}


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the initial weights, the batches and every random draw

    config.dataset = ml_collections.ConfigDict()
    # digits, folder, arrays, pairs, the name of an image data set of tensorflow-datasets, or one
    # of your own by its import path, such as "my_parts:birds", as all parts of a run may be: see
    # docs/components.md
    config.dataset.name = "digits"
    config.dataset.path = ""  # of a folder of class folders, or of an .npz file
    config.dataset.data_dir = ""  # of tensorflow-datasets; empty for its own default
    config.dataset.image_size = 64  # pixels a side that images are brought to
    config.dataset.channels = 3  # 1 for grey
    config.dataset.invert = False  # exchange black and white
    # Of a picture that is not square: crop (its middle square alone is seen), pad, stretch.
    config.dataset.fit = "crop"
    config.dataset.background = 255  # grey level behind what is transparent, or padded; 0 is black
    config.dataset.max_pixels = 178_956_970  # of a picture; a larger one is refused
    # image, class; group of a folder or arrays; official of a folder or tensorflow-datasets
    config.dataset.split_by = "image"
    config.dataset.test_fraction = 0.2
    config.dataset.validation_fraction = 0.1
    config.dataset.split_seed = 0
    # Of tensorflow-datasets: empty to find them, else such as "class_id", "identity/Identity_No".
    config.dataset.image_feature = ""
    config.dataset.label_feature = ""
    config.dataset.train_split = "train"  # of the builder; several are joined by +
    config.dataset.validation_split = ""  # empty to hold it out of training
    config.dataset.test_split = "test"
    config.dataset.class_level = 1  # of a folder: how many folders make the class; 2 of a/b/1.jpg
    config.dataset.turns_as_classes = False  # quarter turns of a training class are new ones
    config.dataset.images_as_classes = False  # every training image is one; labels are not used
    config.dataset.bad_images = "refuse"  # or skip
    # Features are brought to mean 0 and deviation 1 over the training split; images are not.
    config.dataset.standardise = True
    config.dataset.placement = "device"  # all of it on the device, or stream from disk
    config.dataset.workers = 2  # processes that load a stream; 0 for threads
    config.dataset.label_noise = 0.0  # share of every training class that is labelled wrongly
    config.dataset.noise_kind = "symmetric"  # or class_conditional, within_group
    config.dataset.noise_seed = 0
    config.dataset.drop_noisy = False  # leave the wrong ones out: what knowing them would give

    config.batch = ml_collections.ConfigDict()
    config.batch.classes = 32  # P, over all devices
    config.batch.per_class = 4  # K
    config.batch.small_classes = "refuse"  # or drop, or redraw
    # Of every class only this share may be drawn, the first by this order.
    config.batch.pool = 1.0
    config.batch.order = "easy"  # easy or hard ones first, by the scores; or random
    config.batch.scores = ""  # file of experiments.score
    # Share of the batches whose classes are of as few groups (alphabets, or groups of the scores
    # file) as hold them.
    config.batch.same_group = 0.0

    # The whole training set is embedded every so many steps, and the nearest examples of other
    # classes come into a batch together.
    config.offline = ml_collections.ConfigDict()
    config.offline.every = 0  # steps; 0 is never
    config.offline.neighbours = 10  # that are kept of each example
    config.offline.near = 3  # of those, how many are drawn for an example of a batch
    config.offline.table = ""  # file of another run, offline/step_*.npz, to start from

    config.augment = ml_collections.ConfigDict()  # of images; 0 or False is off
    config.augment.crop = 0  # shift by whole pixels, up to this many
    config.augment.flip = False  # left and right
    config.augment.turn = False  # by a random quarter
    config.augment.shift = 0.0  # pixels
    config.augment.rotate = 0.0  # degrees
    config.augment.scale = 0.0  # 0.1 is about 10%
    config.augment.shear = 0.0  # degrees
    config.augment.noise = 0.0  # standard deviation; a white pixel is 1
    config.augment.own = ""  # one of your own after all of these, by its import path

    config.model = ml_collections.ConfigDict()
    config.model.name = "conv4"  # mlp, conv4, resnet18, resnet50
    config.model.width = 64  # channels of conv4 and of a resnet's first stage, units of mlp
    config.model.dim = 64  # of the embedding
    config.model.normalize = True  # embeddings of length 1
    config.model.norm = "batch"  # or group
    config.model.dropout = 0.0  # share of the features before the embedding; in training alone
    # Hidden units of a head between the embedding and the loss, dropped at evaluation; 0 is off.
    config.model.projection = 0
    config.model.projection_dim = 64  # values that this head gives
    config.model.towers = 1  # or 2 encoders, of which each has one row of every pair of rows
    config.model.second = ""  # the backbone of the second; empty for that of the first

    config.mining = ml_collections.ConfigDict()
    config.mining.miner = "semi_hard"  # a name in mining.MINERS
    config.mining.second = ""  # another miner, with its own defaults
    config.mining.mix = 0.0  # the second miner's share of the loss
    # By which triplets are picked, where it is not loss.metric; a name in distances.METRICS without
    # parameters of its own.
    config.mining.metric = ""
    config.mining.tile_size = 0  # the most anchors at a time; 0 chooses
    # Numbers of the miner; what is not set keeps the miner's own default.
    config.mining.knobs = ml_collections.ConfigDict()
    config.mining.knobs.beta = config_dict.placeholder(float)  # boltzmann
    config.mining.knobs.cutoff = config_dict.placeholder(float)  # distance_weighted
    config.mining.knobs.degrees = config_dict.placeholder(float)  # angular
    config.mining.knobs.epsilon = config_dict.placeholder(float)  # multi_similarity
    config.mining.knobs.farthest = config_dict.placeholder(float)  # distance_weighted
    config.mining.knobs.first = config_dict.placeholder(int)  # rank_range
    config.mining.knobs.fraction = config_dict.placeholder(float)  # batch_hard_skip
    config.mining.knobs.hardness = config_dict.placeholder(float)  # quantile
    config.mining.knobs.high = config_dict.placeholder(float)  # band
    config.mining.knobs.last = config_dict.placeholder(int)  # rank_range
    config.mining.knobs.low = config_dict.placeholder(float)  # band
    config.mining.knobs.margin = config_dict.placeholder(float)  # easy
    config.mining.knobs.n = config_dict.placeholder(int)  # rank
    config.mining.knobs.width = config_dict.placeholder(float)  # semi_hard_band, _facenet
    _add_knobs(config.mining.knobs, mining.MINERS)

    config.loss = ml_collections.ConfigDict()
    config.loss.name = "triplet"  # or a name in contrastive.LOSSES, which no miner goes with
    # A learned vector for each class: "references" that the batch is compared with, or "anchors"
    # that are compared with the batch; empty for none.
    config.loss.proxies = ""
    config.loss.num_classes = 0  # of the proxies: as many as training has
    config.loss.metric = "euclidean"  # a name in distances.METRICS
    config.loss.p = config_dict.placeholder(float)  # of minkowski
    config.loss.penalty = "hinge"  # a name in losses.PENALTIES
    config.loss.margin = 0.1  # of triplets; that of other losses is a knob
    config.loss.average = "active"  # or valid
    config.loss.knobs = ml_collections.ConfigDict()  # likewise of the penalty
    config.loss.knobs.beta = config_dict.placeholder(float)  # margin_based
    config.loss.knobs.ceiling = config_dict.placeholder(float)  # selectively_contrastive
    config.loss.knobs.temperature = config_dict.placeholder(float)  # selectively_contrastive
    config.loss.knobs.weight = config_dict.placeholder(float)  # selectively_contrastive
    _add_knobs(config.loss.knobs, losses.PENALTIES | contrastive.LOSSES)
    config.loss.learned = ()  # knobs of the penalty that are learned, such as ("beta",)
    # The loss is the mean of those of an embedding's first so many values (Matryoshka); the last is
    # model.dim. Evaluation then reports each.
    config.loss.nested_dims = ()
    config.loss.norm_weight = 0.0  # of the mean squared length of embeddings
    config.loss.spread_weight = 0.0  # of how far the cosines between classes are from 0 (GOR)

    # Past embeddings that a batch is compared with, too (XBM).
    config.memory = ml_collections.ConfigDict()
    config.memory.size = 0  # how many; 0 is off
    config.memory.start = 0  # the first step that uses them; they are kept from the first on
    config.memory.weight = 1.0  # of that loss, beside the batch's own
    # The batch is compared with what the moving average of the weights makes of it and of the past
    # (MoCo), and not with itself.
    config.memory.of_average = False
    config.memory.miner = ""  # another miner than mining.miner, with its own defaults

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adam"  # adam, adamw, sgd
    config.optimizer.learning_rate = 1e-3  # the peak
    config.optimizer.proxies_rate = 1.0  # the proxies' learning rate, as a multiple of it
    config.optimizer.warmup_steps = 0
    config.optimizer.decay = "cosine"  # to 0 at the last step; or constant
    config.optimizer.weight_decay = 0.0  # adamw
    config.optimizer.momentum = 0.9  # sgd
    config.optimizer.clip_norm = 0.0  # of the gradient; 0 is off
    config.optimizer.average_decay = 0.0  # moving average of the weights; 0 is off

    config.train = ml_collections.ConfigDict()
    config.train.steps = 1000
    # Parts of a device's batch that are embedded one after the other, for batches that do not fit
    # into memory; batch normalisation then has the statistics of a part.
    config.train.micro_batches = 1

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.every = 500  # steps between validations, each with a checkpoint
    config.evaluate.ways = 20  # of few-shot episodes; fewer if there are fewer classes
    config.evaluate.episodes = 1000
    config.evaluate.batch = (
        0  # inputs embedded at a time, over all devices; 0 chooses by their size
    )
    config.evaluate.checkpoint = "best"  # by validation MAP@R; or last

    config.log = ml_collections.ConfigDict()
    config.log.every = 10
    config.log.tensorboard = False
    config.log.telemetry_every = 50  # arrays about mining; 0 is off
    config.log.telemetry_per_anchor = False  # and of each anchor, hence each class

    # Numbers that move while training, each described by `schedule` under a name of your own.
    config.schedules = ml_collections.ConfigDict()
    return config


# Fields whose values have knobs, by the section that the knobs are in.
WITH_KNOBS = {"mining.miner": "mining", "loss.penalty": "loss", "loss.name": "loss"}


def add_own_knobs(
    config: ml_collections.ConfigDict, named_by: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Adds a field for every number of the miners and losses of the user's own.

    Args:
      config: to add them to.
      named_by: the config that names those parts by their import paths; None for the same one.

    Raises:
      InputError: one of them cannot be imported.
    """
    names = config if named_by is None else named_by
    for field, section in WITH_KNOBS.items():
        try:
            name = names[section][field.rpartition(".")[2]]
        except (KeyError, TypeError):  # of a damaged file, which is reported elsewhere
            continue
        if import_paths.is_path(name):
            try:
                function = import_paths.function(name)
            except errors.InputError as error:
                raise errors.InputError(f"{field}={error}") from error
            with config.unlocked():
                _add_knobs(config[section].knobs, {name: function})
    return config


def like(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The defaults of all fields that this config may have: with the knobs of its own parts."""
    return add_own_knobs(get_config(), config)


def _add_knobs(knobs, table):
    """A field for every number of a miner or penalty that is not listed."""
    for function in table.values():
        for name, parameter in inspect.signature(function).parameters.items():
            kind = type(parameter.default)
            is_number = parameter.kind is parameter.KEYWORD_ONLY and kind in (int, float)
            if is_number and name not in knobs:
                knobs[name] = config_dict.placeholder(kind)


def schedule(field: str, **differences) -> ml_collections.ConfigDict:
    """A schedule of one numeric field, for `config.schedules.NAME`.

    Args:
      field: any number of the miner or the loss, such as "mining.knobs.hardness" or
        "loss.margin"; or mining.mix, memory.weight, batch.pool, batch.same_group, batch.classes,
        batch.per_class.
      differences: from what is below.
    """
    record = ml_collections.ConfigDict()
    record.field = field
    record.kind = "linear"  # in schedules.PACINGS; or constant, cosine, piecewise, self_paced
    record.order = "curriculum"  # or anti_curriculum, random, standard
    record.start = 0.0  # the field's value where the curriculum begins
    record.end = 1.0  # and where it leads
    record.a = 0.8  # the share of training that it takes
    record.b = 0.0  # the share of the way that it starts at
    record.boundaries = ()  # of piecewise: shares of training
    record.levels = ()  # of piecewise: shares of the way, one more than boundaries
    record.target = 0.5  # of self_paced: the active fraction to hold
    record.rate = 0.01  # of self_paced: the most it moves in a step
    record.decay = 0.9  # of self_paced: of the running average
    record.update(differences)
    return record


def with_variant(
    config: ml_collections.ConfigDict, variant: str, variants: dict[str, dict] = VARIANTS
) -> ml_collections.ConfigDict:
    """The config with the differences that a variant's name stands for."""
    if variant not in variants:
        raise ValueError(
            f"variant {variant!r} is not known; after the colon may stand one of"
            f" {', '.join(sorted(variants))}"
        )
    return with_differences(config, variants[variant])


def with_differences(
    config: ml_collections.ConfigDict, differences: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """The config with some fields set; a name under "schedules." may be new, or a mapping."""
    config.update_from_flattened_dict({f: v for f, v in differences.items() if f in WITH_KNOBS})
    add_own_knobs(config)
    for field, value in differences.items():
        owner, _, name = field.rpartition(".")
        if owner == "schedules":
            with config.unlocked():
                config.schedules[name] = schedule(**value)
        else:
            config.update_from_flattened_dict({field: value})
    return config
