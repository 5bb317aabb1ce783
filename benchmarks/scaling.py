"""Measures the parts of a step over devices and processes, beside a model of their cost.

    python -m benchmarks.scaling --write

The step is conv4 with 64 channels on images of 28 x 28, semi-hard mining, and Adam with a moving
average. Devices are simulated on the cores of one machine and add no speed: the times show how much
work there is, and what devices and processes add to it. A gallery of a million references and a
sampler of 100,000 classes are measured too.
"""

import functools
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
GALLERIES = (10_000, 100_000, 300_000, 1_000_000)  # references
QUERIES, GALLERY_DIM, GALLERY_CLASSES = 10_000, 128, 10_000
CLASSES = 100_000

# The accelerator and its links of the prediction, by a data sheet: nothing here is measured.
FLOPS, LINK, LATENCY = 30e12, 50e9, 20e-6  # float32 that a step reaches, bytes/s, seconds
PREDICTED = (8, 64, 512)
PER_DEVICE = 256


class Part(NamedTuple):
    """A compiled part of the step, with its arguments."""

    program: Any
    arguments: tuple[Any, ...]

    def run(self) -> Any:
        """Runs the part and waits for its results."""
        import jax

        return jax.block_until_ready(self.program(*self.arguments))

    def held(self) -> int:
        """The bytes that XLA sets aside on each device: arguments, results and temporaries."""
        of = self.program.lower(*self.arguments).compile().memory_analysis()
        return of.argument_size_in_bytes + of.output_size_in_bytes + of.temp_size_in_bytes


def parts(case: Case) -> dict[str, Part]:
    """The parts of the step, each over all devices of all processes."""
    import jax
    import jax.numpy as jnp
    import optax

    from triplet_jax import losses, models
    from triplet_jax.devices import collectives

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
    over = collectives.over_devices
    state = params, optimizer.init(params), params
    return {
        "encoder": Part(over(embed, in_axes=(None, 0), out_axes=0), (params, x)),
        "gather": Part(over(gathered, in_axes=(0,), out_axes=0), (e,)),
        "mining": Part(over(mined, in_axes=(0, 0), out_axes=0), (e, labels)),
        "update": Part(over(update, in_axes=(None, 0)), (state, several)),
    }


def measure_parts(case: Case) -> dict[str, Any]:
    """Measures the parts of the step in this process.

    Returns:
      For each part the median seconds, the MiB by which the process's peak rose above what it held
      before, and the MiB that XLA sets aside on a device. Mining is without its gathering.
    """
    found = {}
    for name, part in parts(case).items():
        common.forget_peak_memory()
        before = common.peak_memory()
        part.run()
        # All processes repeat it equally often, since they wait for each other.
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            part.run()
            seconds.append(time.perf_counter() - start)
        found[name] = float(np.median(seconds))
        found[f"{name} MiB"] = (common.peak_memory() - before) / 2**20
        found[f"{name} MiB of a device"] = part.held() / 2**20
    found["mining"] = max(found["mining"] - found["gather"], 0.0)
    return found


def measure_gallery(references: int) -> dict[str, Any]:
    """Times the search for ten neighbours of each query in a gallery, and the retrieval metrics."""
    from triplet_jax import evaluation

    random = np.random.default_rng(0)
    gallery = random.normal(size=(references, GALLERY_DIM)).astype(np.float32)
    asked = gallery[:QUERIES] + 0.1 * random.normal(size=(QUERIES, GALLERY_DIM)).astype(np.float32)
    classes = np.arange(references) % GALLERY_CLASSES
    common.forget_peak_memory()
    before = common.peak_memory()
    start = time.perf_counter()
    _, position = evaluation.nearest(asked, gallery, neighbours=10)
    neighbours = time.perf_counter()
    evaluation.retrieval(asked, classes[:QUERIES], references=gallery, reference_labels=classes)
    return {
        "neighbours": neighbours - start,
        "retrieval": time.perf_counter() - neighbours,
        "right": float(np.mean(position[:, 0] == np.arange(QUERIES))),
        "MiB": (common.peak_memory() - before) / 2**20,
        "arrays": (gallery.nbytes + asked.nbytes) / 2**20,
    }


def measure_sampler() -> dict[str, Any]:
    """Times the drawing of 64 x 4 examples out of many classes, on the host and in a step."""
    import jax
    import jax.numpy as jnp

    from triplet_jax.data import sampling

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
    """Runs the processes of a case, and returns what the first one measured."""
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
    """Measures every case, galleries of several sizes, and the sampler."""
    found = {"machine": common.machine("jax"), "cases": [], "galleries": []}
    in_own_process = functools.partial(common.in_own_process, "benchmarks.scaling")
    for case in CASES:
        found["cases"].append({"case": case, **run_case(case, options.timeout)})
        print(case, {p: round(found["cases"][-1][p], 4) for p in PARTS}, flush=True)
    for references in GALLERIES:
        size = ("--references", str(references))
        record = in_own_process("--measure", "gallery", *size, timeout=options.timeout)
        found["galleries"].append({"references": references, **record})
        print(found["galleries"][-1], flush=True)
    found["sampler"] = in_own_process("--measure", "sampler", timeout=options.timeout)
    print("sampler", found["sampler"], flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def model(case: Case, of: dict[Case, dict]) -> dict[str, float]:
    """The expected seconds of each part where all devices share the cores of one machine.

    The work of the encoder grows with the batch, and that of mining with `batch^2 dim` and the
    batch. Every device gathers all rows and updates all parameters. The factors come from two cases
    of one device.

    Args:
      case: the size of the step.
      of: what was measured, by case.
    """
    base, large = of[BASE], of[Case(2048, 64, 1, 1)]
    # mining = a batch^2 dim + b batch, through two points.
    points = [(c.batch**2 * c.dim, c.batch) for c in (BASE, Case(2048, 64, 1, 1))]
    a, b = np.linalg.solve(np.array(points, float), [base["mining"], large["mining"]])
    size = case.batch * case.dim / (BASE.batch * BASE.dim)
    return {
        "encoder": base["encoder"] * case.batch / BASE.batch,
        "gather": base["gather"] * size * case.devices,
        "mining": float(a * case.batch**2 * case.dim + b * case.batch),
        "update": base["update"] * case.devices,
    }


def model_of_memory(case: Case, of: dict[Case, dict]) -> dict[str, float]:
    """The expected MiB of each part on a device, by what the first case took.

    The encoder keeps activations of its rows. Gathering keeps its arguments, its results and all
    rows once. Mining keeps a tile of distances, whose size does not depend on the batch, and all
    rows with their gradients. The update keeps the parameters and Adam's state, before and after.

    Args:
      case: the size of the step.
      of: what was measured, by case.
    """
    base = {part: of[BASE][f"{part} MiB of a device"] for part in PARTS}
    everything, first = (c.batch * c.dim * 4 / 2**20 for c in (case, BASE))
    return {
        "encoder": base["encoder"] * (case.batch / case.devices) / BASE.batch,
        "gather": everything * (1 + 2 / case.devices),
        "mining": base["mining"] + 2 * (everything - first),
        "update": base["update"],
    }


def predicted(devices: int, flops_of_row: float, parameters: int, dim: int) -> dict[str, float]:
    """The predicted seconds of each part on real accelerators with `PER_DEVICE` rows each."""
    batch = PER_DEVICE * devices
    hops = 2 * np.log2(devices) * LATENCY
    return {
        "encoder": PER_DEVICE * flops_of_row / FLOPS,
        "gather": 2 * batch * dim * 4 / LINK + hops,
        "mining": 2 * PER_DEVICE * batch * dim * 3 / FLOPS,
        "update": 2 * parameters * 4 / LINK + hops,
    }


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    of = {Case(*record["case"]): record for record in found["cases"]}
    rows, held = [], []
    for case, record in of.items():
        expected, memory = model(case, of), model_of_memory(case, of)
        size = [f"{case.batch:,}", *map(str, case[1:])]
        cells = [f"{1e3 * record[p]:.3g} ({1e3 * expected[p]:.3g})" for p in PARTS]
        peak = max(record[f"{p} MiB"] for p in PARTS)
        rows.append([*size, *cells, f"{peak:.0f}"])
        cells = [f"{record[f'{p} MiB of a device']:.3g} ({memory[p]:.3g})" for p in PARTS]
        held.append([*size, *cells])
    sizes = ("batch", "dim", "devices", "processes")
    header = (*sizes, *(f"{p}, ms" for p in PARTS), "MiB of a process")
    flops, parameters, dim = 3 * 19.6e6, 115_840, BASE.dim
    ahead = []
    for devices in PREDICTED:
        case = Case(PER_DEVICE * devices, dim, devices, 1)
        expected, memory = predicted(devices, flops, parameters, dim), model_of_memory(case, of)
        cells = [f"{1e3 * expected[p]:.3g}" for p in PARTS]
        needed = [f"{memory[p]:.3g}" for p in PARTS]
        ahead.append([f"{devices}", f"{case.batch:,}", *cells, *needed])
    galleries = [
        [
            f"{gallery['references']:,}",
            f"{gallery['neighbours']:.1f}",
            f"{gallery['retrieval']:.1f}",
            f"{gallery['arrays']:,.0f}",
            f"{gallery['MiB']:,.0f}",
            f"{gallery['right']:.2%}",
        ]
        for gallery in found["galleries"]
    ]
    sampler = found["sampler"]
    return "\n\n".join(
        [
            f"{found['machine']}.",
            common.table(header, rows),
            "Memory that XLA sets aside on a device, and in brackets what the model says, from the"
            " first row:",
            common.table((*sizes, *(f"{p}, MiB" for p in PARTS)), held),
            f"Predicted for accelerators, {PER_DEVICE} rows each; nothing of it is measured:",
            common.table(
                ("devices", "batch", *(f"{p}, ms" for p in PARTS), *(f"{p}, MiB" for p in PARTS)),
                ahead,
            ),
            f"{QUERIES:,} queries search the references of each row, all of {GALLERY_DIM} numbers"
            f" and of {GALLERY_CLASSES:,} classes. The seconds are for ten neighbours and for the"
            " metrics of retrieval, with compilation.",
            common.table(
                (
                    "references",
                    "neighbours, s",
                    "retrieval, s",
                    "MiB of arrays",
                    "MiB above them",
                    "the right one first",
                ),
                galleries,
            ),
            f"A batch of 64 classes x {PER_CLASS} out of {CLASSES:,} classes:"
            f" {1e3 * sampler['host']:.1f} ms on the host, {1e3 * sampler['device']:.1f} ms in a"
            " compiled step.",
        ]
    )


def main() -> None:
    options = _options()
    if options.measure == "parts":
        from experiments import command
        from triplet_jax.devices.processes import start

        command.use_xla_flags()  # as in a run
        case = Case(*json.loads(options.case))
        if case.processes > 1:
            start(options.address, case.processes, options.process)
        print(json.dumps(measure_parts(case)))
    elif options.measure == "gallery":
        print(json.dumps(measure_gallery(options.references)))
    elif options.measure == "sampler":
        print(json.dumps(measure_sampler()))
    else:
        common.report(options, measure_all, tables, DOCUMENT)


def _options():
    parser = common.parser(__doc__, "scaling", rounds=1)
    parser.add_argument("--case", help="the case of one process, as JSON")
    parser.add_argument("--address", help="the address of the first process")
    parser.add_argument("--process", type=int)
    parser.add_argument("--references", type=int, help="the size of a gallery")
    parser.set_defaults(timeout=900)
    return parser.parse_args()


if __name__ == "__main__":
    main()
