"""The benchmarks of image retrieval by their published splits, from pretrained weights.

    python -m experiments.train --config=configs/benchmarks.py:cub200 --config.dataset.path=FOLDER \
        --workdir=runs/cub200

FOLDER is the data set as it is unpacked; its numbers of images and classes are compared with the
published ones (`triplet_jax.data.benchmark_sets`). The weights are those of ResNet-50 on ImageNet,
which are downloaded once. A tenth of the training classes validates and chooses the checkpoint.

    cub200      11,788 birds: 100 classes to train, 100 others to test
    cars196     16,185 cars: 98 classes to train, 98 others to test
    sop         120,053 photographs of products: 11,318 classes and 11,316 others
    inshop      52,712 photographs of clothes: 3,997 classes, then queries and gallery of 3,985
    market1501  pedestrians before six cameras: 751 people, then queries and gallery of 750 others;
                a query leaves out the images of its person by its own camera

Only such scores compare with these as have the same split and metric, embeddings of as many values,
images of as many pixels, the same first weights, and a checkpoint that was not chosen on the test.
Musgrave et al. 2020 (https://arxiv.org/abs/2003.08505) measure CUB, Cars196 and SOP so, with
BN-Inception. On Market-1501 Hermans et al. 2017 (https://arxiv.org/abs/1703.07737) report mAP 66.3
and Recall@1 84.1 with batch-hard triplets, ResNet-50, 128 values and images of 256 x 128 pixels;
here they are 224 x 224. None of these runs has been made by us yet: the data have to be downloaded.
"""

from configs import base

# Batches of many classes with few images, as these data have; people have more.
SETS = {
    "cub200": {"batch.classes": 16},
    "cars196": {"batch.classes": 16},
    "sop": {"batch.classes": 32, "batch.per_class": 2, "batch.small_classes": "redraw"},
    "inshop": {"batch.classes": 32, "batch.per_class": 2, "batch.small_classes": "redraw"},
    "market1501": {
        "batch.classes": 18,
        "dataset.fit": "stretch",
        "evaluate.ignore_group": True,
        "mining.miner": "batch_hard",
        "loss.penalty": "soft_margin",
        "loss.average": "valid",
        "model.normalize": False,
    },
}


def get_config(name: str = "cub200"):
    config = base.get_config()
    config.dataset.image_size = 224
    config.dataset.placement = "stream"
    config.model.name = "resnet50"
    config.model.weights = "hf://timm/resnet50.tv_in1k"
    config.model.norm = "batch"
    config.model.dim = 128
    config.model.fixed_statistics = True
    config.augment.policy = "photos"
    config.loss.margin = 0.2
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.backbone_rate = 0.1
    config.optimizer.warmup_steps = 100
    config.train.steps = 5000
    config.evaluate.every = 500
    sets = {key: {"dataset.name": key} | fields for key, fields in SETS.items()}
    return base.with_variant(config, name, sets)
