"""Files that were cut, changed or made by somebody else are read, or refused; they run nothing.

FUZZ=1000 looks at so many of each kind.
"""

import io
import json
import os
import pathlib
import pickle
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from configs import digits
from experiments import evaluate, report
from triplet_jax import data, errors, images, logging, telemetry
from triplet_jax.analysis import run

EXAMPLES = int(os.environ.get("FUZZ", 40))
SUPPRESSED = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=SUPPRESSED,
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The files of a small run."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    config = digits.get_config("semi_hard")
    logging.write_json(folder / "config.json", json.loads(config.to_json()))
    rows = [{"step": 10 * i, "loss": 0.5 / i, "validation/map_at_r": 0.1} for i in range(1, 9)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)
    arrays = [{"step": 10 * i, "hardness": [0.1, 0.9]} for i in range(1, 9)]
    (folder / "telemetry.jsonl").write_text("".join(json.dumps(row) + "\n" for row in arrays))
    labels = np.repeat(np.arange(5), 4)
    split = np.array(["train", "test", "validation", "test"] * 5)
    for save, name in ((np.savez, "plain.npz"), (np.savez_compressed, "embeddings.npz")):
        save(
            folder / name,
            embeddings=random.normal(size=(20, 3)).astype(np.float32),
            labels=labels,
            split=split,
        )
    np.savez(folder / "label_noise.npz", positions=np.arange(3), given=np.zeros(3, int))
    (folder / "result.json").write_text(json.dumps({"embedding": {"retrieval": {}}}))
    return folder


@st.composite
def damages(draw):
    """What is done to the bytes of a file."""
    kind = draw(st.sampled_from(("cut", "flip", "insert", "zeros", "noise", "twice")))
    at, size = draw(st.floats(0, 1)), draw(st.integers(1, 64))
    noise = draw(st.binary(min_size=size, max_size=size))

    def damage(content):
        place = int(at * max(0, len(content) - 1))
        if kind == "cut":
            return content[:place]
        if kind == "flip":
            flipped = bytes(
                a ^ b for a, b in zip(content[place : place + size], noise, strict=False)
            )
            return content[:place] + flipped + content[place + len(flipped) :]
        if kind == "insert":
            return content[:place] + noise + content[place:]
        if kind == "zeros":
            return content[:place] + bytes(size) + content[place + size :]
        return noise if kind == "noise" else content + content

    return damage


def names(file):
    return data.read_arrays(str(file), ("embeddings", "labels", "split"), field="workdir")


READERS = {
    "plain.npz": names,
    "embeddings.npz": lambda file: run.load(file.parent),
    "label_noise.npz": lambda file: run.load(file.parent),
    "config.json": lambda file: evaluate.read_config(file.parent),
    "result.json": lambda file: run.load(file.parent),
    "metrics.jsonl": lambda file: run.load(file.parent),
    "telemetry.jsonl": lambda file: telemetry.read(file.parent),
}


def read_or_refused(file, change):
    """Reads a file whose bytes were changed, and puts it back."""
    whole = file.read_bytes()
    file.write_bytes(change(whole))
    try:
        READERS[file.name](file)
    except errors.InputError as error:
        assert str(error)
    finally:
        file.write_bytes(whole)


def test_what_is_no_array_in_an_npz_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "plain.npz", "w") as file:
        for name in ("embeddings", "labels", "split"):
            file.writestr(f"{name}.npy", b"not an array")
    with pytest.raises(errors.InputError, match="no array"):
        names(tmp_path / "plain.npz")


@pytest.mark.parametrize("name", sorted(READERS))
@fuzzed
@hypothesis.given(damage=damages())
def test_a_damaged_file_is_read_or_refused(name, damage, workdir):
    read_or_refused(workdir / name, damage)


class Harmful:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["npz", "npy", "pickle"])
@pytest.mark.parametrize("name", ["embeddings.npz", "label_noise.npz", "plain.npz"])
def test_nothing_in_a_file_is_run(how, name, workdir, tmp_path):
    mark, file = tmp_path / "mark", workdir / name
    whole = file.read_bytes()
    harm = np.array([Harmful(mark)] * 20, dtype=object)
    try:
        if how == "npz":
            keys = ("embeddings", "labels", "split", "positions", "given")
            np.savez(file, **dict.fromkeys(keys, harm))
        elif how == "npy":
            with file.open("wb") as opened:
                np.save(opened, harm, allow_pickle=True)
        else:
            file.write_bytes(pickle.dumps(Harmful(mark)))
        with pytest.raises(errors.InputError):
            READERS[name](file)
    finally:
        file.write_bytes(whole)
    assert not mark.exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl", "telemetry.jsonl"])
@fuzzed
@hypothesis.given(content=json_values)
def test_json_of_another_shape_is_read_or_refused(name, content, workdir):
    read_or_refused(workdir / name, lambda _: json.dumps(content).encode())


@fuzzed
@hypothesis.given(damage=damages())
def test_a_damaged_sweep_is_reported_or_refused(damage, tmp_path):
    content = json.dumps({"arms": [["a", {}]], "settings": [["", {}]], "seeds": [0], "run": {}})
    (tmp_path / "sweep.json").write_bytes(damage(content.encode()))
    with pytest.raises(errors.InputError):
        report.write(tmp_path)


def encoded(form):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.filterwarnings("ignore")  # of Pillow, which goes on with what it could read
@fuzzed
@hypothesis.given(damage=damages())
def test_a_damaged_image_is_decoded_or_refused(form, damage):
    try:
        pixels = images.ImageForm(size=16, channels=1).read(damage(encoded(form)))
    except errors.InputError as error:
        assert "cannot be read as an image" in str(error)
    else:
        assert pixels.shape == (16, 16, 1)


def test_a_very_long_image_needs_little_memory(tmp_path):
    PIL.Image.new("L", (1, 60_000)).save(tmp_path / "long.png")
    pixels = images.ImageForm(size=224, channels=3).read(str(tmp_path / "long.png"))
    assert pixels.shape == (224, 224, 3)
