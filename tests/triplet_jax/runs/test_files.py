"""What was there stays where a file cannot be written, and the error names the file."""

import contextlib
import errno
import os
import pathlib
import resource
import subprocess

import flax.linen as nn
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.analysis import plots
from triplet_jax.evaluation import gallery
from triplet_jax.models import export
from triplet_jax.runs import files, row_files

NOISE = np.random.default_rng(0).random((200, 200))


def text(path):
    files.write_text(path, "é" * 40_000)


def json(path):
    files.write_json(path, {"numbers": list(range(10_000))})


def arrays(path):
    files.write_arrays(path, a=NOISE, b=NOISE)


class Product(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return x @ self.param("w", nn.initializers.normal(), NOISE.shape)


def encoder(path):
    variables = {"params": {"w": jnp.asarray(NOISE, jnp.float32)}}
    export.write(path, Product(), variables, (200,), jnp.float32)


def picture(path):
    figure, axes = plt.subplots()
    axes.imshow(NOISE)
    plots.write(figure, path)
    plt.close(figure)


def parquet(path):
    pytest.importorskip("lancedb")
    with no_limit():
        store = gallery.Gallery(path.parent.parent / "gallery", dim=200)
        names = [str(i) for i in range(200)]
        if not len(store):
            store.put(names, names, names, NOISE.astype(np.float32))
    store.write_parquet(path)


WRITERS = {
    "text.md": text,
    "numbers.json": json,
    "arrays.npz": arrays,
    "encoder.jaxexport": encoder,
    "picture.png": picture,
    "all.parquet": parquet,
}


@contextlib.contextmanager
def limit(size):
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def no_limit():
    return limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory):
    """A folder on a disk with room for 16 kB."""
    disk = tmp_path_factory.mktemp("writing") / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount the small disk that this test fills")
    yield disk
    subprocess.run(["umount", disk], check=True)


def check_nothing_is_lost(write, path, number):
    path.write_text("what was there")
    there = sorted(os.listdir(path.parent))
    with pytest.raises(OSError) as caught:
        write(path)
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert path.read_text() == "what was there"
    assert sorted(os.listdir(path.parent)) == there


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_what_was_there_stays(name, full_disk):
    check_nothing_is_lost(WRITERS[name], full_disk / name, errno.ENOSPC)
    (full_disk / name).unlink()


@pytest.mark.parametrize("name", WRITERS)
def test_where_a_file_may_not_grow_what_was_there_stays(name, tmp_path):
    (tmp_path / "place").mkdir()
    with limit(8_000):
        check_nothing_is_lost(WRITERS[name], tmp_path / "place" / name, errno.EFBIG)
    WRITERS[name](tmp_path / "place" / name)
    assert (tmp_path / "place" / name).stat().st_size > 8_000
    assert os.listdir(tmp_path / "place") == [name]


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Quota"), KeyboardInterrupt()])
def test_whatever_ends_the_block_leaves_nothing_beside(error, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(type(error)), files.whole_file(path) as file:
        file.write(b"half of it")
        raise error
    assert not os.listdir(tmp_path)


def test_an_error_of_the_rename_names_the_file_alone(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(self), None, str(target))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(PermissionError) as caught:
        files.write_text(tmp_path / "summary.csv", "arm\n")
    assert str(caught.value) == f"[Errno 13] Permission denied: '{tmp_path / 'summary.csv'}'"


def test_a_link_is_followed_and_a_device_is_written_directly(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere" / "file.json")
    files.write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["file.json"]
    files.write_text(pathlib.Path("/dev/null"), "text")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(IsADirectoryError):
        files.write_text(tmp_path / "elsewhere", "text")


def test_a_row_that_cannot_be_added_names_its_file():
    rows = row_files.RowFile.__new__(row_files.RowFile)
    rows.rows, rows._path, rows._file = [], "metrics.jsonl", open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device: 'metrics.jsonl'"):
        rows.write({"step": 1})
    with pytest.raises(OSError, match="metrics.jsonl"):
        rows.close()


def test_a_picture_of_a_format_that_is_none_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match=r"ending of .*sheet.jpgg='jpgg'.*'jpg'"):
        picture(tmp_path / "sheet.jpgg")


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert files.read_json(path, "a") == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_two_may_write_one_file_and_the_last_to_end_has_written_it(tmp_path):
    path = tmp_path / "kept.bin"
    with files.whole_file(path) as first:
        first.write(b"first, the longer one")
        with files.whole_file(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        first.write(b"!")
    assert path.read_bytes() == b"first, the longer one!"
    assert list(tmp_path.iterdir()) == [path]
