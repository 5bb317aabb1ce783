"""A step by its parts, over devices and processes, beside a model of what it should take.

    python -m benchmarks.scaling --write

conv4 with 64 channels on images of 28 x 28, semi-hard mining, Adam with a moving average. Devices
are simulated on the cores of one machine, so that they add no speed: what can be seen is how much
work there is, and what devices and processes add to it. A gallery of a million and a sampler of
100,000 classes are measured too.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "scaling.md"
PER_CLASS = 4
SHAPE = (28, 28, 1)
PARTS = ("encoder", "gather", "mining", "update")


class Case(NamedTuple):
    """The size of a step."""

    batch: int
    dim: int
    devices: int
    processes: int


BASE = Case(512, 64, 1, 1)
CASES = (
    BASE,
    Case(128, 64, 1, 1),
    Case(2048, 64, 1, 1),
    Case(512, 256, 1, 1),
    Case(512, 64, 2, 1),
    Case(512, 64, 4, 1),
    Case(512, 64, 8, 1),
    Case(512, 64, 4, 2),
    Case(512, 64, 4, 4),
    Case(2048, 256, 8, 1),
)
GALLERY = (1_000_000, 10_000, 128)  # references, queries, dim
CLASSES = 100_000

# What the prediction takes of an accelerator and its links; of a data sheet, not measured.
FLOPS, LINK, LATENCY = 30e12, 50e9, 20e-6  # float32 that a step reaches, bytes/s, seconds
PREDICTED = (8, 64, 512)
PER_DEVICE = 256


def parts(case: Case) -> dict[str, Any]:
    """Each part of the step as a function that runs it, over all devices of all processes."""
    import jax
    import jax.numpy as jnp
    import optax

    from triplet_jax import collectives, losses, models

    axis = collectives.DEVICES
    encoder = models.encoder("conv4", dim=case.dim, norm="group", width=64)
    params = encoder.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))["params"]
    optimizer = optax.adam(1e-3)
    rows = case.batch // case.devices
    own = collectives.own_devices()
    random = np.random.default_rng(0)
    x = random.normal(size=(case.devices, rows, *SHAPE)).astype(np.float32)[own]
    e = random.normal(size=(case.devices, rows, case.dim)).astype(np.float32)[own]
    labels = (np.arange(case.batch) // PER_CLASS).reshape(case.devices, rows)[own]

    def embed(params, x):
        return jax.grad(lambda p: jnp.sum(encoder.apply({"params": p}, x) ** 2))(params)

    def gathered(e):
        return jax.grad(lambda e: jnp.sum(collectives.gather(e, axis) ** 2))(e)

    def mined(e, labels):
        return jax.grad(lambda e: losses.triplet_loss(e, labels, axis_name=axis)[0])(e)

    def update(state, grads):
        params, opt_state, average = state
        grads = collectives.mean(grads, axis)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, opt_state, optax.incremental_update(params, average, 0.01)

    several = jax.tree.map(lambda p: np.stack([p] * len(own)), params)
    run = {
        "encoder": (collectives.over_devices(embed, in_axes=(None, 0), out_axes=0), params, x),
        "gather": (collectives.over_devices(gathered, in_axes=(0,), out_axes=0), e),
        "mining": (collectives.over_devices(mined, in_axes=(0, 0), out_axes=0), e, labels),
        "update": (
            collectives.over_devices(update, in_axes=(None, 0)),
            (params, optimizer.init(params), params),
            several,
        ),
    }
    return {
        name: lambda f=f, arguments=arguments: jax.block_until_ready(f(*arguments))
        for name, (f, *arguments) in run.items()
    }


def measure_parts(case: Case) -> dict[str, Any]:
    """Median seconds of each part in this process, and MiB above what was held before."""
    found = {}
    for name, run in parts(case).items():
        common.forget_peak_memory()
        before = common.peak_memory()
        run()
        # As often in every process, since they wait for each other.
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        found[name] = float(np.median(seconds))
        found[f"{name} MiB"] = (common.peak_memory() - before) / 2**20
    found["mining"] = max(found["mining"] - found["gather"], 0.0)
    return found


def measure_gallery() -> dict[str, Any]:
    """Ten neighbours of each query in a large gallery."""
    from triplet_jax import evaluation

    references, queries, dim = GALLERY
    random = np.random.default_rng(0)
    gallery = random.normal(size=(references, dim)).astype(np.float32)
    asked = gallery[:queries] + 0.1 * random.normal(size=(queries, dim)).astype(np.float32)
    common.forget_peak_memory()
    before = common.peak_memory()
    start = time.perf_counter()
    _, position = evaluation.nearest(asked, gallery, neighbours=10)
    seconds = time.perf_counter() - start
    right = float(np.mean(position[:, 0] == np.arange(queries)))
    peak = (common.peak_memory() - before) / 2**20
    return {"seconds": seconds, "right": right, "MiB": peak}


def measure_sampler() -> dict[str, Any]:
    """A batch of 64 classes x 4 out of many, on the host and in a compiled step."""
    import jax
    import jax.numpy as jnp

    from triplet_jax import sampling

    index = sampling.class_index(np.repeat(np.arange(CLASSES), 5))
    options = {"classes": 64, "per_class": PER_CLASS}
    on_device = jax.tree.map(jnp.asarray, index)
    drawn = jax.jit(lambda index, step: sampling.pk_batch(jnp, index, 0, step, **options))

    def host():
        return sampling.pk_batch(np, index, 0, 7, **options)

    def device():
        return np.asarray(drawn(on_device, 7))

    assert (host() == device()).all()
    return {
        "host": float(np.median(common.times(host))),
        "device": float(np.median(common.times(device))),
    }


def run_case(case: Case, timeout: float) -> dict[str, Any]:
    """What the first process of a case measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    of_process = case.devices // case.processes
    flags = f"--xla_force_host_platform_device_count={of_process}"
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.scaling", "--measure", "parts"),
                *("--case", json.dumps(case), "--address", address, "--process", str(number)),
            ],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(case.processes)
    ]
    said = [process.communicate(timeout=timeout)[0] for process in started]
    return json.loads(said[0].splitlines()[-1])


def measure_all(options) -> dict[str, Any]:
    """Every case, the gallery and the sampler."""
    found = {"machine": common.machine("jax"), "cases": []}
    for case in CASES:
        found["cases"].append({"case": case, **run_case(case, options.timeout)})
        print(case, {p: round(found["cases"][-1][p], 4) for p in PARTS}, flush=True)
    for name in ("gallery", "sampler"):
        found[name] = common.in_own_process(
            "benchmarks.scaling", "--measure", name, timeout=options.timeout
        )
        print(name, found[name], flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def model(case: Case, of: dict[Case, dict]) -> dict[str, float]:
    """Seconds of each part where all devices share the cores, from three cases of one device.

    The encoder's work is the batch's, that of mining `batch^2 dim` and a part of the batch; each
    device gathers everything, and updates all parameters.
    """
    base, large = of[BASE], of[Case(2048, 64, 1, 1)]
    # mining = a batch^2 dim + b batch, through two points
    points = [(c.batch**2 * c.dim, c.batch) for c in (BASE, Case(2048, 64, 1, 1))]
    a, b = np.linalg.solve(np.array(points, float), [base["mining"], large["mining"]])
    size = case.batch * case.dim / (BASE.batch * BASE.dim)
    return {
        "encoder": base["encoder"] * case.batch / BASE.batch,
        "gather": base["gather"] * size * case.devices,
        "mining": float(a * case.batch**2 * case.dim + b * case.batch),
        "update": base["update"] * case.devices,
    }


def predicted(devices: int, flops_of_row: float, parameters: int, dim: int) -> dict[str, float]:
    """Seconds of each part on accelerators of their own, `PER_DEVICE` rows each."""
    batch = PER_DEVICE * devices
    hops = 2 * np.log2(devices) * LATENCY
    return {
        "encoder": PER_DEVICE * flops_of_row / FLOPS,
        "gather": 2 * batch * dim * 4 / LINK + hops,
        "mining": 2 * PER_DEVICE * batch * dim * 3 / FLOPS,
        "update": 2 * parameters * 4 / LINK + hops,
    }


def tables(found: dict[str, Any]) -> str:
    """Everything that was found, as Markdown."""
    of = {Case(*record["case"]): record for record in found["cases"]}
    rows = []
    for case, record in of.items():
        expected = model(case, of)
        cells = [f"{1e3 * record[p]:.3g} ({1e3 * expected[p]:.3g})" for p in PARTS]
        peak = max(record[f"{p} MiB"] for p in PARTS)
        rows.append([f"{case.batch:,}", *map(str, case[1:]), *cells, f"{peak:.0f}"])
    header = ("batch", "dim", "devices", "processes", *(f"{p}, ms" for p in PARTS), "MiB")
    flops, parameters, dim = 3 * 19.6e6, 115_840, BASE.dim
    ahead = []
    for devices in PREDICTED:
        expected = predicted(devices, flops, parameters, dim)
        cells = [f"{1e3 * expected[p]:.3g}" for p in PARTS]
        ahead.append([f"{devices}", f"{PER_DEVICE * devices:,}", *cells])
    references, queries, dim = GALLERY
    gallery, sampler = found["gallery"], found["sampler"]
    return "\n\n".join(
        [
            f"{found['machine']}.",
            common.table(header, rows),
            f"Predicted for accelerators, {PER_DEVICE} rows each; nothing of it is measured:",
            common.table(("devices", "batch", *(f"{p}, ms" for p in PARTS)), ahead),
            f"Ten neighbours of {queries:,} queries among {references:,} x {dim}:"
            f" {gallery['seconds']:.0f} s with compiling, {gallery['MiB']:,.0f} MiB above the"
            f" arrays; the right one is first for {gallery['right']:.2%}.",
            f"A batch of 64 classes x {PER_CLASS} out of {CLASSES:,} classes:"
            f" {1e3 * sampler['host']:.1f} ms on the host, {1e3 * sampler['device']:.1f} ms in a"
            " compiled step.",
        ]
    )


def main() -> None:
    options = _options()
    if options.measure == "parts":
        from experiments import command
        from triplet_jax import hosts

        command.use_xla_flags()  # as a run does
        case = Case(*json.loads(options.case))
        if case.processes > 1:
            hosts.start(options.address, case.processes, options.process)
        print(json.dumps(measure_parts(case)))
    elif options.measure:
        print(
            json.dumps({"gallery": measure_gallery, "sampler": measure_sampler}[options.measure]())
        )
    else:
        common.report(options, measure_all, tables, DOCUMENT)


def _options():
    parser = common.parser(__doc__, "scaling", rounds=1)
    parser.add_argument("--case", help="of one process")
    parser.add_argument("--address", help="of the first process")
    parser.add_argument("--process", type=int)
    parser.set_defaults(timeout=900)
    return parser.parse_args()


if __name__ == "__main__":
    main()
