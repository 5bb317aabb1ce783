"""Files that were cut, changed or made by somebody else are read, or refused; they run nothing.

What has a checksum is refused, or read as it was.

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
from experiments.config import datasets
from experiments.run import changes, config_json, data_json
from experiments.sweeps import outcome, slurm, summary
from tests.support import limits, prepared
from triplet_jax import data, errors
from triplet_jax.analysis import run
from triplet_jax.curricula import difficulty, offline_negatives
from triplet_jax.data import images
from triplet_jax.runs import files, telemetry_file

EXAMPLES = int(os.environ.get("FUZZ", 16))
SUPPRESSED = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=SUPPRESSED,
)
SPLIT = {"split_by": "image", "held_out": data.HeldOut(0.25, 0.0, seed=0)}
MODEL = {"dim": 8}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The files of a small run, and of what it may be given."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    config = digits.get_config("semi_hard")
    files.write_json(folder / "config.json", json.loads(config.to_json()))
    files.write_json(folder / "data.json", data_json.content(datasets.dataset(config)))
    fields = {"log.every": 10}
    changes.note(folder, fields, {"log.every": 5}, 40)
    names = ("loss", "mean_d_ap", "mean_d_an", "embedding_norm", "embedding_spread")
    rows = [{"step": 10 * i} | dict.fromkeys(names, 0.5 / i) for i in range(1, 9)]
    rows[-1]["validation/map_at_r"] = 0.1
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
    retrieval = {"retrieval": {"map_at_r": 0.5}}
    result = {"embedding": retrieval, "raw_pixels": retrieval, "trained_steps": 1000}
    files.write_json(folder / "result.json", result)

    x = random.integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
    np.savez_compressed(folder / "data.npz", x=x, y=labels)
    everything = data.arrays(str(folder / "data.npz"), **SPLIT)
    hard = random.random((everything.split == "train").sum()).astype(np.float32)
    scores = difficulty.Scores(hard, np.arange(5))
    difficulty.write(folder / "scores.npz", scores, everything)
    table = random.integers(0, len(labels), (len(labels), 2), np.int32)
    offline_negatives.write(folder / "near.npz", table, examples=everything, model=MODEL)
    (folder / "slurm").mkdir()
    jobs = {f"a seed {i}": {"job": f"7_{i}", "step": 10, "tries": 1} for i in range(2)}
    files.write_json(folder / "slurm" / "jobs.json", jobs)
    prepared.omniglot(folder)

    of_sweep = folder / "sweep" / "runs" / "a" / "seed0"
    of_sweep.mkdir(parents=True)
    files.write_json(of_sweep / "result.json", result)
    files.write_json(of_sweep / "config.json", json.loads(config.to_json()))
    (of_sweep / "metrics.jsonl").write_text(text)
    sweep = {"arms": [["a", {}]], "settings": [["", {}]], "seeds": [0], "best_of": [], "run": {}}
    sweep |= {"reference": "a", "metric": "map_at_r", "claim": "", "source": ""}
    files.write_json(folder / "sweep" / "sweep.json", sweep)
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


def names(workdir):
    path = str(workdir / "plain.npz")
    return data.read_arrays(path, ("embeddings", "labels", "split"))


def arrays(workdir):
    found = data.arrays(str(workdir / "data.npz"), **SPLIT)
    return found.inputs, found.labels, found.split, found.class_names


def scores(workdir):
    everything = data.arrays(str(workdir / "data.npz"), **SPLIT)
    return difficulty.read(str(workdir / "scores.npz"), everything)


def near(workdir):
    everything = data.arrays(str(workdir / "data.npz"), **SPLIT)
    path = str(workdir / "near.npz")
    return offline_negatives.read(path, examples=everything, model=MODEL, neighbours=2)


def records(workdir):
    form, split = images.ImageForm(size=8, channels=3), SPLIT | {"split_by": "official"}
    found = data.from_tfds("omniglot", data_dir=str(workdir), form=form, **split)
    return images.load(found.inputs), found.labels, found.split, found.class_names


def jobs(workdir):
    return sorted(slurm.Book(workdir).numbers())


def table(workdir):
    return summary.markdown(outcome.read(workdir / "sweep"))


CHECKED = {
    "plain.npz": names,
    "embeddings.npz": run.embeddings_of,
    "label_noise.npz": lambda workdir: run.load(workdir).given,
    "data.npz": arrays,
    "scores.npz": scores,
    "near.npz": near,
    "omniglot/3.0.0/omniglot-test.array_record-00000-of-00001": records,
}
UNCHECKED = {
    "config.json": config_json.read,
    "changes.json": changes.history,
    "data.json": lambda workdir: data_json.input_shapes(workdir, config_json.read(workdir)),
    "result.json": run.load,
    "metrics.jsonl": run.load,
    "telemetry.jsonl": telemetry_file.read,
    "omniglot/3.0.0/dataset_info.json": records,
    "slurm/jobs.json": jobs,
    "sweep/sweep.json": table,
    "sweep/runs/a/seed0/config.json": table,
    "sweep/runs/a/seed0/metrics.jsonl": table,
    "sweep/runs/a/seed0/result.json": table,
}
READERS = CHECKED | UNCHECKED


def read_or_refused(workdir, name, change):
    """Reads a file whose bytes were changed, and puts it back."""
    file = workdir / name
    whole = file.read_bytes()
    right = READERS[name](workdir) if name in CHECKED else None
    file.write_bytes(change(whole))
    try:
        with limits.fails_after(60):
            found = READERS[name](workdir)
    except errors.InputError as error:
        assert str(error)
    else:
        if name in CHECKED:
            np.testing.assert_equal(found, right)
    finally:
        file.write_bytes(whole)


def test_what_is_no_array_in_an_npz_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "plain.npz", "w") as file:
        for name in ("embeddings", "labels", "split"):
            file.writestr(f"{name}.npy", b"not an array")
    with pytest.raises(errors.InputError, match="cannot be read as an .npz"):
        names(tmp_path)


def test_an_array_of_an_npz_that_says_it_is_smaller_is_refused(tmp_path):
    ones = np.ones((2000, 3), np.float32)
    np.savez(tmp_path / "plain.npz", embeddings=ones, labels=ones, split=ones)
    whole = (tmp_path / "plain.npz").read_bytes()
    assert whole.count(b"(2000, 3)") == 3
    (tmp_path / "plain.npz").write_bytes(whole.replace(b"(2000, 3)", b"(1000, 3)", 1))
    with pytest.raises(errors.InputError, match="cannot be read as an .npz"):
        names(tmp_path)


@pytest.mark.parametrize("name", sorted(READERS))
@fuzzed
@hypothesis.given(damage=damages())
def test_a_damaged_file_is_read_or_refused(name, damage, workdir):
    read_or_refused(workdir, name, damage)


@pytest.mark.parametrize("name", sorted(n for n in READERS if not n.endswith(".jsonl")))
def test_half_a_file_is_refused(name, workdir):
    READERS[name](workdir)  # the whole one is not
    whole = (workdir / name).read_bytes()
    (workdir / name).write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(errors.InputError):
            READERS[name](workdir)
    finally:
        (workdir / name).write_bytes(whole)


def test_a_metric_that_is_no_number_is_refused(workdir):
    file = workdir / "sweep" / "runs" / "a" / "seed0" / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + json.dumps({"step": 90, "loss": "low"}))
    try:
        with pytest.raises(errors.InputError, match="loss of step 90 is no number"):
            table(workdir)
    finally:
        file.write_text(whole)


class Harmful:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["npz", "npy", "pickle"])
@pytest.mark.parametrize("name", sorted(name for name in READERS if name.endswith(".npz")))
def test_nothing_in_a_file_is_run(how, name, workdir, tmp_path):
    mark, file = tmp_path / "mark", workdir / name
    whole = file.read_bytes()
    harm = np.array([Harmful(mark)] * 20, dtype=object)
    try:
        if how == "npz":
            with np.load(file) as saved:
                keys = list(saved)
            np.savez(file, **dict.fromkeys(keys, harm))
        elif how == "npy":
            with file.open("wb") as opened:
                np.save(opened, harm, allow_pickle=True)
        else:
            file.write_bytes(pickle.dumps(Harmful(mark)))
        with pytest.raises(errors.InputError):
            READERS[name](workdir)
    finally:
        file.write_bytes(whole)
    assert not mark.exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=8,
)


def another(draw, value):
    """What was in a JSON file, with one part of it replaced by whatever JSON can hold."""
    parts = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(parts, dict) or not parts or draw(st.integers(0, 3)) == 0:
        return draw(json_values)
    key = draw(st.sampled_from(list(parts)))
    changed = parts | {key: another(draw, parts[key])}
    return list(changed.values()) if isinstance(value, list) else changed


@pytest.mark.parametrize("name", sorted(UNCHECKED))
@fuzzed
@hypothesis.given(drawn=st.data())
def test_json_of_another_shape_is_read_or_refused(name, drawn, workdir):
    def change(whole):
        lines = whole.splitlines() if name.endswith(".jsonl") else [whole]
        content = [json.loads(line) for line in lines]
        which = drawn.draw(st.integers(0, len(content) - 1))
        content[which] = another(drawn.draw, content[which])
        return "".join(json.dumps(line) + "\n" for line in content).encode()

    read_or_refused(workdir, name, change)


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
        with limits.fails_after(60):
            pixels = images.ImageForm(size=16, channels=1).read(damage(encoded(form)))
    except errors.InputError as error:
        assert "cannot be read as an image" in str(error)
    else:
        assert pixels.shape == (16, 16, 1)


def test_a_very_long_image_needs_little_memory(tmp_path):
    PIL.Image.new("L", (1, 60_000)).save(tmp_path / "long.png")
    pixels = images.ImageForm(size=224, channels=3).read(str(tmp_path / "long.png"))
    assert pixels.shape == (224, 224, 3)
