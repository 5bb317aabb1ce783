"""Fine-tunes EfficientNet-Lite0 on photographs with PyTorch and PyTorch Metric Learning.

    make oracle                      # installs both
    .venv/bin/python -m benchmarks.photos_torch --path=FOLDER --weights=FILE.safetensors --seed=0

The recipe is the usual one: 150 steps of 12 classes x 4 photographs, semi-hard triplets with margin
0.2, AdamW, batch normalisation by its running statistics, random resized crops and flips. The
weights, the split, the photographs as they are read, and the evaluation are ours; the network, the
miner, the loss, the augmentation and the optimizer are theirs. It prints one line of JSON.
"""

import argparse
import json
import time

import jax
import numpy as np
import pytorch_metric_learning.losses
import pytorch_metric_learning.miners
import timm
import torch
import torchvision.transforms.v2 as transforms

from benchmarks import grocery
from configs import photos
from triplet_jax import evaluation, models
from triplet_jax.data import images
from triplet_jax.models import principal, published, weight_files

CLASSES, PER_CLASS, MARGIN = 12, 4, 0.2


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--path", required=True)
    flags.add_argument("--weights", required=True)
    flags.add_argument("--head", choices=("random", "principal"), default="random")
    flags.add_argument("--dim", type=int, default=128)
    flags.add_argument("--size", type=int, default=160)
    flags.add_argument("--steps", type=int, default=150)
    flags.add_argument("--backbone_rate", type=float, default=1e-4)
    flags.add_argument("--head_rate", type=float, default=1e-3)
    flags.add_argument("--seed", type=int, default=0)
    given = flags.parse_args()
    torch.manual_seed(given.seed)
    everything = _data(given)
    pixels = torch.from_numpy(images.load(everything.inputs)).permute(0, 3, 1, 2)
    train = np.flatnonzero(everything.split == "train")
    backbone = _backbone(given.weights).to(memory_format=torch.channels_last)
    head = torch.nn.Linear(1280, given.dim)
    if given.head == "principal":
        made = principal.head(_embed(backbone, pixels[train]), given.dim)
        head.weight.data = torch.from_numpy(made["kernel"].T.copy())
        head.bias.data = torch.from_numpy(made["bias"])
    started = time.perf_counter()
    _train(given, backbone, head, pixels, everything.labels)
    seconds = time.perf_counter() - started
    test = np.flatnonzero(everything.split == "test")
    with torch.no_grad():
        features = torch.from_numpy(_embed(backbone, pixels[test]))
        embeddings = torch.nn.functional.normalize(head(features)).numpy()
    scores = evaluation.retrieval(embeddings, everything.labels[test])
    print(
        json.dumps(
            vars(given)
            | {name: scores[name] for name in ("map_at_r", "precision_at_1")}
            | {"milliseconds_a_step": 1e3 * seconds / given.steps}
        )
    )


def _data(given):
    c = photos.get_config().dataset
    c.update({"path": given.path, "image_size": given.size, "resample": "bicubic"})
    c.crop_ratio = 1.0
    return grocery.zero_shot(c)


def _backbone(weights):
    """The network of timm with the weights of the file, brought to timm's names by ours."""
    ours = models.BACKBONES["efficientnet_lite0"]()
    example = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda x: ours.init(jax.random.key(0), x, False), example)
    filled = published.fill(shapes, weight_files.read(weights).tensors, ours.layouts())
    (layout,) = (one for one in ours.layouts() if one.name == "timm")
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    arrays = published.published(filled.variables, layout)
    theirs.load_state_dict({k: torch.tensor(x) for k, x in arrays.items()}, strict=False)
    return theirs.eval()


def _normalised(pixels):
    return pixels.to(torch.float32).to(memory_format=torch.channels_last) / 127.5 - 1


@torch.no_grad()
def _embed(backbone, pixels):
    parts = [backbone(_normalised(part)) for part in pixels.split(128)]
    return torch.cat(parts).numpy()


def _train(given, backbone, head, pixels, labels):
    miner = pytorch_metric_learning.miners.TripletMarginMiner(MARGIN, "semihard")
    loss_of = pytorch_metric_learning.losses.TripletMarginLoss(MARGIN)
    groups = [
        {"params": backbone.parameters(), "lr": given.backbone_rate},
        {"params": head.parameters(), "lr": given.head_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.steps)
    draw = np.random.default_rng(given.seed)
    crop = transforms.RandomResizedCrop(given.size, (0.16, 1.0), antialias=True)
    augment = transforms.Compose([crop, transforms.RandomHorizontalFlip()])
    for _ in range(given.steps):
        classes = draw.choice(grocery.TRAINED, CLASSES, replace=False)
        rows = np.concatenate(
            [draw.choice(np.flatnonzero(labels == c), PER_CLASS, replace=False) for c in classes]
        )
        batch = torch.stack([augment(pixels[row]) for row in rows])
        y = torch.nn.functional.normalize(head(backbone(_normalised(batch))))
        of_batch = torch.from_numpy(labels[rows])
        loss = loss_of(y, of_batch, miner(y, of_batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()
