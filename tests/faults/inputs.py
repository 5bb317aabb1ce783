"""Data that cannot be trained on."""

import pathlib
from collections.abc import Iterator

import numpy as np
import PIL.Image
import sklearn.datasets

from experiments.config import datasets
from experiments.run import config_json
from tests.faults.bench import EVERY, Bench, all_of, complaint
from tests.support import programs


def _of_arrays(bench) -> tuple[Bench, pathlib.Path]:
    """Runs on a file of arrays, and the file."""
    file = bench.fresh() / "data.npz"
    _write(file, sklearn.datasets.load_digits().data)
    fields = {
        "dataset__name": "arrays",
        "dataset__path": file,
        "model__name": "mlp",
        "augment__shift": 0.0,
        "augment__rotate": 0.0,
        "augment__scale": 0.0,
    }
    return bench.leave_alone(**fields), file


def _write(file, x):
    np.savez(file, x=x, y=sklearn.datasets.load_digits().target)


def _refused(bench, workdir, *words):
    done = bench.run(workdir)
    return complaint(all_of(done), done.returncode, 2, *words) or "refused"


def data_cut_short(bench: Bench) -> Iterator[str]:
    """a file of data cut short, of a run that is to go on; then it is put back"""
    bench, file = _of_arrays(bench)
    workdir, whole = bench.stopped(after=EVERY), file.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        file.write_bytes(whole[: int(share * len(whole))])
        yield _refused(bench, workdir, "dataset.path")
    file.write_bytes(whole)
    yield bench.finish(workdir)


def not_a_number(bench: Bench) -> Iterator[str]:
    """a NaN that some batches hold, before the run and where it goes on; then it is mended"""
    bench, file = _of_arrays(bench)
    workdirs, whole = (bench.fresh(), bench.stopped(after=EVERY)), file.read_bytes()
    x = sklearn.datasets.load_digits().data
    x[_of_training(bench), 3] = np.nan
    _write(file, x)
    for workdir in workdirs:
        yield _refused(bench, workdir, "dataset.path", "NaN or infinite", "Remove or fill them")
    file.write_bytes(whole)
    for workdir in workdirs:
        yield bench.finish(workdir)


def not_finite(bench: Bench) -> Iterator[str]:
    """numbers so large that the loss of some batches is NaN; then they are mended"""
    bench, file = _of_arrays(bench)
    x, whole = sklearn.datasets.load_digits().data, file.read_bytes()
    x[_of_training(bench)] = 3e38
    _write(file, x)
    done = bench.run(bench.fresh(), offline__every=0)
    words = ("is not finite", "The last good checkpoint", "in a new --workdir")
    yield complaint(all_of(done), done.returncode, 1, *words) or "ended, saying so"
    file.write_bytes(whole)
    yield bench.finish(bench.fresh())


def _of_training(bench):
    """The row of an example that is trained on."""
    everything = datasets.dataset(config_json.read(bench.alone))
    return int(np.flatnonzero(everything.split == "train")[-1])


def image_that_is_none(bench: Bench) -> Iterator[str]:
    """an image of a folder that is none, before the run and during it; then it is put back"""
    root = bench.fresh() / "images"
    bunch = sklearn.datasets.load_digits()
    for i, (image, label) in enumerate(zip(bunch.images[:400], bunch.target, strict=False)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray((image * 15).astype(np.uint8)).save(root / str(label) / f"{i}.png")
    bench = bench.leave_alone(
        config="configs/folder.py",
        dataset__path=root,
        dataset__image_size=16,
        batch__classes=5,
        batch__per_class=4,
    )
    broken = root / "0" / "0.png"
    whole = {file: file.read_bytes() for file in root.glob("*/*.png")}
    broken.write_bytes(whole[broken][:40])
    yield _refused(bench, bench.fresh(), "0.png")
    done = bench.run(bench.fresh(), dataset__bad_images="skip")
    yield complaint(all_of(done), done.returncode, 0) or "left out, as asked"
    broken.write_bytes(whole[broken])
    workdir = bench.fresh()
    process = bench.start(workdir)
    programs.wait_until(lambda: programs.last_step(workdir) >= 10, process)
    for file in whole:
        file.write_bytes(b"no image")
    said, _ = process.communicate()
    yield complaint(said, process.returncode, 2, ".png") or "ended, saying so"
    for file, data in whole.items():
        file.write_bytes(data)
    yield bench.finish(workdir)
