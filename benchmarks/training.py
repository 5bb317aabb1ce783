"""Times steps of training and embedding, beside PyTorch with PyTorch Metric Learning.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.training

Both have the same architecture, batch and optimizer, in float32: conv4 on 32 x 4 images of
28 x 28 x 1, resnet18 on 16 x 4 of 64 x 64 x 3, and resnet50 and efficientnet_lite0 on 8 x 4 of
160 x 160 x 3. Ours is the step of `experiments.train` with the miner semi_hard. Theirs has
TripletMarginMiner("semihard") and TripletMarginLoss, in the memory format of torch's default and in
channels last. Ours is also measured with telemetry at every step of the first two; by default it
runs at every 50th.
"embed" embeds the same batch with the running statistics, as the embedding of a folder does. Each
case runs in its own process, in rounds. With --one-core each has one core and counts its CPU time,
which other programs change little.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import backbones, common

WIDTH, DIM, MARGIN, LEARNING_RATE = 64, 64, 0.2, 1e-3
TELEMETRY = "ours, telemetry at every step"
LIBRARIES = ("ours", TELEMETRY, "torch", "torch, channels last")
TELEMETRY_OF = ("conv4", "resnet18")
CASES = ("step", "embed")


class Setting(NamedTuple):
    """The batch of a model: P classes, K images of each, and the shape of an image."""

    classes: int
    per_class: int
    shape: tuple[int, int, int]

    @property
    def images(self) -> int:
        """The images of a batch."""
        return self.classes * self.per_class


MODELS = {
    "conv4": Setting(32, 4, (28, 28, 1)),
    "resnet18": Setting(16, 4, (64, 64, 3)),
    "resnet50": Setting(8, 4, (160, 160, 3)),
    "efficientnet_lite0": Setting(8, 4, (160, 160, 3)),
}


def batch(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.random.default_rng(0).random((setting.images, *setting.shape), np.float32)
    return inputs, np.repeat(np.arange(setting.classes), setting.per_class)


def ours(
    model: str, case: str = "step", telemetry_every: int = 0
) -> tuple[Callable[[], float], int]:
    """A function that takes a step of ours and returns its loss, or embeds, and the weights."""
    import jax

    from configs import base
    from experiments import command
    from experiments.config import encoders, stepping
    from triplet_jax.models import inference
    from triplet_jax.training import data_parallel

    command.use_xla_flags()  # as a run does
    setting = MODELS[model]
    config = base.get_config()
    config.batch.update(classes=setting.classes, per_class=setting.per_class)
    config.model.update(name=model, dim=DIM)  # of the default width, 64
    config.loss.margin = MARGIN
    config.optimizer.update(learning_rate=LEARNING_RATE, decay="constant")
    config.log.telemetry_every = telemetry_every
    encoder = encoders.encoder(config, setting.shape)
    state = data_parallel.replicate(stepping.initial_state(config, encoder, setting.shape))
    weights = sum(x.size for x in jax.tree.leaves(state.params))
    if case == "embed":
        embed = inference.make_embed(encoder, batch=setting.images)
        variables = jax.device_get(state.variables)
        return lambda: float(embed(variables, batch(setting)[0]).sum()), weights
    lifted = data_parallel.streamed(stepping.step(config, encoder, augment=None))
    # One device, as torch has.
    inputs, labels = (jax.device_put(x[None]) for x in batch(setting))
    places = np.arange(setting.images)[None]

    def step():
        nonlocal state
        state, metrics = jax.block_until_ready(lifted(state, inputs, labels, places))
        return float(metrics["loss"])

    return step, weights


def torchs(
    model: str, case: str = "step", channels_last: bool = False
) -> tuple[Callable[[], float], int]:
    """A function that takes a step of torch and returns its loss, or embeds, and the weights."""
    import torch
    from pytorch_metric_learning import distances, losses, miners

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    form = torch.channels_last if channels_last else torch.contiguous_format
    setting = MODELS[model]
    encoder = _torch_encoder(model, setting.shape).to(device, memory_format=form)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=LEARNING_RATE)
    distance = distances.LpDistance(normalize_embeddings=False)
    mine = miners.TripletMarginMiner(MARGIN, "semihard", distance=distance)
    loss = losses.TripletMarginLoss(MARGIN, distance=distance)
    inputs, labels = (torch.tensor(x, device=device) for x in batch(setting))
    inputs = inputs.permute(0, 3, 1, 2).contiguous(memory_format=form)
    weights = sum(p.numel() for p in encoder.parameters())
    if case == "embed":
        encoder.eval()

        def embed():
            with torch.inference_mode():
                return torch.nn.functional.normalize(encoder(inputs)).sum().item()

        return embed, weights

    def step():
        optimizer.zero_grad()
        embeddings = torch.nn.functional.normalize(encoder(inputs))
        value = loss(embeddings, labels, mine(embeddings, labels))
        value.backward()
        optimizer.step()
        return value.item()

    return step, weights


def _torch_encoder(model, shape):
    from torch import nn

    height, _, channels = shape
    if model == "efficientnet_lite0":
        return nn.Sequential(backbones.torch_backbone(), nn.Linear(1280, DIM))
    if model == "resnet50":
        import timm

        return timm.create_model(model, num_classes=DIM, zero_init_last=True)
    if model == "conv4":
        widths = (channels, *[WIDTH] * 4)
        blocks = [
            nn.Sequential(_conv(a, b, 3), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
            for a, b in zip(widths, widths[1:], strict=False)
        ]
        return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(WIDTH * (height // 16) ** 2, DIM))
    stem = (_conv(channels, WIDTH, 7, 2), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    blocks, before = [], WIDTH
    for stage in range(4):
        width = WIDTH * 2**stage
        blocks += [_residual(before, width, 2 if stage else 1), _residual(width, width, 1)]
        before = width
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, DIM)
    )


def _residual(before, width, stride):
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.straight = nn.Sequential(
                *(_conv(before, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
                *(_conv(width, width, 3), nn.BatchNorm2d(width)),
            )
            nn.init.zeros_(self.straight[-1].weight)
            self.skip = nn.Identity()
            if before != width or stride != 1:
                self.skip = nn.Sequential(_conv(before, width, 1, stride), nn.BatchNorm2d(width))

        def forward(self, x):
            return nn.functional.relu(self.skip(x) + self.straight(x))

    return Residual()


def _conv(before, after, size, stride=1):
    from torch import nn

    return nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)


def measure(model: str, case: str, library: str, one_core: bool) -> dict[str, Any]:
    """Measures one library in this process: seconds of each step, after one to warm up."""
    if one_core:  # before threads are started
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if library.startswith("ours"):
        step, weights = ours(model, case, telemetry_every=int(library == TELEMETRY))
    else:
        step, weights = torchs(model, case, channels_last="last" in library)
    step()
    clock = time.process_time if one_core else time.perf_counter
    return {"seconds": common.times(step, clock), "weights": weights}


def measure_all(options) -> dict[str, Any]:
    """Measures every library with every model."""
    found = {"machine": common.machine("jax", "flax", "torch", "pytorch-metric-learning", "timm")}
    found["unit"] = "CPU ms, on one core" if options.one_core else "ms"
    rounds = {
        (model, case, library): []
        for model in options.models
        for case in options.cases
        for library in LIBRARIES
        if library != TELEMETRY or (case == "step" and model in TELEMETRY_OF)
    }
    for number in range(options.rounds):
        for (model, case, library), so_far in rounds.items():
            so_far.append(
                common.in_own_process(
                    *("benchmarks.training", "--measure", library),
                    *("--models", model, "--cases", case),
                    *["--one-core"] * options.one_core,
                    timeout=options.timeout,
                )
            )
            print(f"round {number + 1} {model} {case} {library}: {_brief(so_far[-1])}", flush=True)
    found["records"] = [
        {"model": model, "case": case, "library": library} | common.pooled(so_far)
        for (model, case, library), so_far in rounds.items()
    ]
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _brief(record):
    return record.get("note") or f"{np.median(record['seconds']):.4f} s"


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    header = (
        "model",
        "weights",
        "",
        "library",
        f"{found['unit']} (least to most)",
        "images/s",
        "ours / theirs, images/s",
    )
    by_case = {(r["model"], r["case"], r["library"]): r for r in found["records"]}
    rows = []
    for (model, case, library), record in by_case.items():
        if "median" not in record:
            rows.append((model, "", case, library, record["note"], "", ""))
            continue
        seconds, own = record["median"], by_case[model, case, "ours"].get("median")
        peer = not library.startswith("ours")
        faster = common.ratio(seconds / own) if own and peer else ""
        speed = f"{MODELS[model].images / seconds:,.0f}"
        weights = f"{record['weights']:,}"
        shown = common.with_spread(record, lambda seconds: f"{1e3 * seconds:.1f}")
        rows.append((model, weights, case, library, shown, speed, faster))
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = _options()
    if options.measure:
        print(
            json.dumps(
                measure(options.models[0], options.cases[0], options.measure, options.one_core)
            )
        )
        return
    common.report(options, measure_all, tables)


def _options():
    parser = common.parser(__doc__, "training", rounds=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=tuple(MODELS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--one-core", action="store_true", help="count the CPU time of one core")
    return parser.parse_args()


if __name__ == "__main__":
    main()
