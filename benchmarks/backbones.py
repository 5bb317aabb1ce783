"""Times EfficientNet-Lite0 on photographs, beside PyTorch.

    make oracle                      # installs torch
    .venv/bin/python -m benchmarks.backbones --write

Both have the same architecture, random weights, and 32 images of 160 x 160, in float32. A step is
the forward pass, a linear head with embeddings of unit length, the backward pass and AdamW. Batch
normalisation uses its running statistics, as in fine-tuning ("fixed statistics"), or those of the
batch. The loss is a sum, so that only the backbone takes time. Embedding is the forward pass of
evaluation. Torch is measured in its default memory format and in channels last. Each case runs in
its own process, in rounds.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common

IMAGES, SIZE, DIM, LEARNING_RATE = 32, 160, 128, 1e-4
CASES = ("embed", "step, fixed statistics", "step, statistics of the batch")
LIBRARIES = ("ours", "torch", "torch, channels last")


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(IMAGES, SIZE, SIZE, 3)).astype(np.float32)


def ours(case: str) -> Callable[[], Any]:
    """A function that embeds or trains with ours."""
    from experiments import command

    command.use_xla_flags()  # as a run does, before jax is used
    import jax
    import jax.numpy as jnp
    import optax

    from triplet_jax import models

    encoder = models.encoder("efficientnet_lite0", dim=DIM)
    x = jnp.asarray(batch())
    variables = jax.jit(encoder.init)(jax.random.key(0), x[:1])
    if case == "embed":
        embed = jax.jit(functools.partial(encoder.backbone.apply, train=False))
        of_backbone = {kind: tree["backbone"] for kind, tree in variables.items()}
        return lambda: jax.block_until_ready(embed(of_backbone, x))
    optimizer = optax.adamw(LEARNING_RATE)
    of_batch = "batch" in case

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        params, statistics, moments = state

        def loss(params):
            given = {"params": params, "batch_stats": statistics}
            y, after = encoder.apply(given, x, train=of_batch, mutable=["batch_stats"])
            return y[:, 0].sum(), after.get("batch_stats", statistics)

        gradient, statistics = jax.grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), statistics, moments

    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    def run():
        nonlocal state
        state = jax.block_until_ready(step(state))

    return run


def torchs(case: str, channels_last: bool) -> Callable[[], Any]:
    """A function that embeds or trains with torch."""
    import torch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    form = torch.channels_last if channels_last else torch.contiguous_format
    backbone = torch_backbone().to(device, memory_format=form)
    head = torch.nn.Linear(1280, DIM).to(device)
    x = torch.tensor(batch().transpose(0, 3, 1, 2), device=device).contiguous(memory_format=form)
    backbone.train("batch" in case)
    if case == "embed":

        def embed():
            with torch.inference_mode():
                return backbone(x).sum().item()

        return embed
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)

    def step():
        optimizer.zero_grad()
        value = torch.nn.functional.normalize(head(backbone(x)))[:, 0].sum()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def torch_backbone() -> Any:
    """EfficientNet-Lite0 as a module of torch."""
    from torch import nn

    from triplet_jax.models import efficientnet

    def layer(before, after, window, stride=1, groups=1, act=True):
        # As TensorFlow pads: by one row more at the end, where the number is odd.
        total = window - stride
        pad = [nn.ZeroPad2d((total // 2, total - total // 2) * 2)] if total % 2 else []
        conv = nn.Conv2d(
            *(before, after, window, stride),
            padding=0 if total % 2 else total // 2,
            groups=groups,
            bias=False,
        )
        norm = nn.BatchNorm2d(after, eps=1e-3)
        return nn.Sequential(*pad, conv, norm, *([nn.ReLU6(inplace=True)] if act else []))

    class Block(nn.Module):
        def __init__(self, before, size, stride):
            super().__init__()
            inside = before * size.expansion
            self.layers = nn.Sequential(
                *([layer(before, inside, 1)] if size.expansion > 1 else []),
                layer(inside, inside, size.window, stride, groups=inside),
                layer(inside, size.width, 1, act=False),
            )
            self.adds = stride == 1 and before == size.width

        def forward(self, x):
            y = self.layers(x)
            return x + y if self.adds else y

    blocks, before = [], 32
    for size in efficientnet.B0:
        for i in range(size.blocks):
            blocks.append(Block(before, size, size.stride if i == 0 else 1))
            before = size.width
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(layer(3, 32, 3, 2), *blocks, layer(before, 1280, 1), *pooled)


def measure(case: str, library: str) -> dict[str, Any]:
    """Measures one library in this process: seconds of each repeat, after one to warm up."""
    run = ours(case) if library == "ours" else torchs(case, channels_last="last" in library)
    run()
    return {"seconds": common.times(run)}


def measure_all(options) -> dict[str, Any]:
    """Measures every library in every case."""
    found = {"machine": common.machine("jax", "flax", "torch")}
    rounds = {(case, library): [] for case in options.cases for library in options.libraries}
    for number in range(options.rounds):
        for (case, library), so_far in rounds.items():
            so_far.append(
                common.in_own_process(
                    *("benchmarks.backbones", "--measure", library, "--cases", case),
                    timeout=options.timeout,
                )
            )
            brief = so_far[-1].get("note") or f"{np.median(so_far[-1]['seconds']):.4f} s"
            print(f"round {number + 1} {case}, {library}: {brief}", flush=True)
    found["records"] = [
        {"case": case, "library": library} | common.pooled(so_far)
        for (case, library), so_far in rounds.items()
    ]
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    header = ("32 images of 160 x 160", "library", "ms", "images/s", "ours / theirs, time")
    by_case = {(r["case"], r["library"]): r for r in found["records"]}
    rows = []
    for (case, library), record in by_case.items():
        if "median" not in record:
            rows.append((case, library, record["note"], "", ""))
            continue
        seconds, own = record["median"], by_case[case, "ours"].get("median")
        times_as_long = common.ratio(own / seconds) if own and library != "ours" else ""
        speed = f"{IMAGES / seconds:,.0f}"
        rows.append((case, library, f"{1e3 * seconds:.0f}", speed, times_as_long))
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(options.cases[0], options.measure)))
        return
    common.report(options, measure_all, tables)


def _options():
    parser = common.parser(__doc__, "backbones", rounds=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    return parser.parse_args()


if __name__ == "__main__":
    main()
