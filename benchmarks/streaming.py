"""Times a data set of many small images in tar shards: its index, its stream, and training on it.

    .venv/bin/python -m benchmarks.streaming --images=1000000 --write

The shards are those of WebDataset, of 28 x 28 PNGs of a thousand classes with a .cls each, 50,000
images in a shard. They are written into --shards, or into a folder that is removed afterwards; a
million take 2 GB. Batches have 32 x 4 images. "the index made" opens the data set for the first
time, which goes through all shards and decodes every image; "the index kept" opens it again. The
stream must give the same bits when it is started in the middle. Training is that of
`experiments.train` with a conv4 on 50,000 of the images, with the images in memory, or streamed
from the shard by threads or worker processes.
"""

import argparse
import functools
import gc
import hashlib
import io
import json
import multiprocessing
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

import numpy as np
import PIL.Image

from benchmarks import common

CLASSES, SIZE, IN_SHARD, DISTINCT = 1000, 28, 50_000, 20_000
P, K = 32, 4
STEPS, MIDDLE, WARM_UP = 400, 300, 20
WORKERS = (0, 1, 2)
TRAIN_STEPS, LOG_EVERY = 100, 10
IN_MEMORY = "in memory"


def write_shards(folder: pathlib.Path, images: int) -> None:
    """Writes shards of images, of which the first of each class differ from each other."""
    random = np.random.default_rng(0)
    pictures = [_picture(random, number % CLASSES) for number in range(min(DISTINCT, images))]
    for first in range(0, images, IN_SHARD):
        with tarfile.open(folder / f"part-{first // IN_SHARD:04d}.tar", "w") as shard:
            for number in range(first, min(first + IN_SHARD, images)):
                label = str(number % CLASSES).encode()
                for name, content in (("png", pictures[number % DISTINCT]), ("cls", label)):
                    member = tarfile.TarInfo(f"{number:08d}.{name}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


def _picture(random, label):
    pattern = np.random.default_rng(label).integers(0, 2, (7, 7)) ^ (random.random((7, 7)) < 0.1)
    pixels = 200 * np.kron(pattern, np.ones((4, 4))) + random.integers(0, 40, (SIZE, SIZE))
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    return file.getvalue()


def _opened(shards: str):
    from triplet_jax import data
    from triplet_jax.data import images

    return data.from_webdataset(
        shards,
        form=images.ImageForm(size=SIZE, channels=1),
        split_by="image",
        held_out=data.HeldOut(test=0.1, validation=0.0, seed=0),
        bad_images="refuse",
        index_dir=str(pathlib.Path(shards, "index")),
    )


def measure_opening(shards: str) -> dict[str, Any]:
    """The seconds and the memory to open the data set."""
    import triplet_jax.data  # noqa: F401 (imported before the clock starts)

    return common.measured_once(lambda: [len(_opened(shards))])


def measure_stream(shards: str, workers: int) -> dict[str, Any]:
    """The images a second of a stream, the memory of its processes, and whether it resumes."""
    from triplet_jax.data import batch_loading, sampling

    train = _opened(shards).only("train")
    index = sampling.class_index(train.labels)
    draw = functools.partial(_batch, index)

    def digests(first):
        stream = batch_loading.stream(train, draw, first_step=first, steps=STEPS, workers=workers)
        found = []
        for _ in range(first, STEPS):
            found.append(hashlib.sha256(next(stream)[0].tobytes()).hexdigest())
            times.append(time.perf_counter())
        peaks.append(_peak_of_workers())
        stream.close()
        gc.collect()  # the last batch, in shared memory, which lives in a cycle of references
        return found

    times: list[float] = []
    peaks: list[float] = []
    whole = digests(0)
    seconds = (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)
    return {
        "seconds": [seconds],
        "peak": common.peak_memory() / 2**30,
        "peak of a worker": peaks[0],
        "resumes": digests(MIDDLE) == whole[MIDDLE:],
    }


def _peak_of_workers():
    """The most GiB that one of the running worker processes has held, as Linux knows it."""
    found = [0.0]
    for worker in multiprocessing.active_children():
        for line in pathlib.Path(f"/proc/{worker.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found.append(int(line.split()[1]) / 2**20)
    return max(found)


def _batch(index, step: int) -> np.ndarray:
    from triplet_jax.data import sampling

    return sampling.pk_batch(np, index, 0, step, classes=P, per_class=K)


def measure_training(shards: str, workers: int) -> dict[str, Any]:
    """The seconds of a step of `experiments.train`; -1 workers for images in memory."""
    settings = {
        "dataset.name": "webdataset",
        "dataset.path": str(pathlib.Path(shards, "part-0000.tar")),
        "dataset.index_dir": str(pathlib.Path(shards, "index")),
        "dataset.image_size": SIZE,
        "dataset.channels": 1,
        "dataset.test_fraction": 0.1,
        "dataset.validation_fraction": 0.0,
        "dataset.placement": "device" if workers < 0 else "stream",
        "batch.classes": P,
        "batch.per_class": K,
        "augment.crop": 0,
        "augment.flip": False,
        "train.steps": TRAIN_STEPS,
        "log.every": LOG_EVERY,
        **({} if workers < 0 else {"dataset.workers": workers}),
    }
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}/run"]
        command += ["--config=configs/folder.py:semi_hard"]
        command += [f"--config.{name}={value}" for name, value in settings.items()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = pathlib.Path(workdir, "run", "timing.jsonl").read_text().splitlines()
    speeds = [row["images_per_second"] for row in map(json.loads, lines) if len(row) > 1]
    return {"seconds": [P * K / speed for speed in speeds if speed]}


MEASURES = {"open": measure_opening, "stream": measure_stream, "train": measure_training}


def measure_all(options) -> dict[str, Any]:
    """Measures every case, the trainings in rounds."""
    found = {"machine": common.machine("jax", "pillow", "grain"), "images": options.images}
    with tempfile.TemporaryDirectory() as made:
        shards = options.shards or pathlib.Path(made)
        if not list(shards.glob("*.tar")):
            write_shards(shards, options.images)

        def case(kind, *more):
            record = common.in_own_process(
                *("benchmarks.streaming", "--measure", kind, "--shards", shards, *more),
                timeout=options.timeout,
            )
            print(kind, *more, record, flush=True)
            return record

        found["open"] = [case("open"), case("open")]
        found["stream"] = {n: case("stream", "--workers", n) for n in WORKERS}
        rounds = [
            {n: case("train", "--workers", n) for n in (-1, *WORKERS)}
            for _ in range(options.rounds)
        ]
        found["train"] = {n: common.pooled([each[n] for each in rounds]) for n in rounds[0]}
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(options.output.read_text())


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    opened = [
        (name, f"{record['seconds']:.1f}", f"{record['cpu_seconds']:.1f}", f"{record['peak']:.2f}")
        for name, record in zip(("made", "kept"), found["open"], strict=True)
    ]
    streams = [
        (
            _loaded_by(workers),
            f"{P * K / record['seconds'][0]:,.0f}",
            f"{record['peak']:.2f}",
            f"{record['peak of a worker']:.2f}" if int(workers) else "",
            "the same" if record["resumes"] else "OTHERS",
        )
        for workers, record in found["stream"].items()
    ]
    most = found["train"]["-1"]["median"]
    trained = [
        (_loaded_by(workers), f"{P * K / record['median']:,.0f}", f"{most / record['median']:.2f}")
        for workers, record in found["train"].items()
    ]
    return "\n\n".join(
        (
            f"{found['machine']}. {found['images']:,} images.",
            common.table(("the index", "seconds", "CPU seconds", "peak GiB"), opened),
            common.table(
                ("a stream of all", "images/s", "peak GiB", "of a worker", "bits from the middle"),
                streams,
            ),
            common.table(("a conv4 trained", "images/s", "of those in memory"), trained),
        )
    )


def _loaded_by(workers):
    return {"-1": IN_MEMORY, "0": "by threads", "1": "by 1 process"}.get(
        workers, f"by {workers} processes"
    )


def main() -> None:
    options = _options()
    if options.measure:
        more = [] if options.measure == "open" else [options.workers]
        print(json.dumps(MEASURES[options.measure](str(options.shards), *more)))
        return
    common.report(options, measure_all, tables)


def _options():
    parser = common.parser(__doc__, "streaming", rounds=2)
    parser.set_defaults(timeout=1800)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=pathlib.Path, help="a folder of shards, kept")
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
