"""From config fields to the data of a run."""

import io
import re
import tarfile

import numpy as np
import PIL.Image
import pytest

from configs import digits
from experiments.config import datasets, objective, pk_batches
from tests.support.configs import config
from triplet_jax import data, errors
from triplet_jax.curricula import difficulty
from triplet_jax.data import images


def test_a_data_set_of_which_nothing_is_left_to_test_on_is_refused():
    made = config(dataset__test_fraction=0.0)
    with pytest.raises(errors.InputError, match="test_fraction=0.0 leaves none of 1797"):
        datasets.check_test(made, datasets.dataset(made))


def test_proxies_are_of_the_classes_of_training():
    made = digits.get_config("proxy_nca")
    x, labels = np.zeros((12, 8, 8, 1), np.uint8), np.repeat([3, 5, 8], 4)
    made.batch.update({"classes": 3, "per_class": 4})
    everything = data.Dataset(x, labels, np.full(12, "train"), tuple("0123456789"))
    with pytest.raises(errors.InputError, match="set loss.num_classes=3"):
        datasets.training_split(made, everything)
    made.loss.num_classes = 3
    train, _ = datasets.training_split(made, everything)
    assert train.labels.tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert train.class_names == ("3", "5", "8")
    proxies = objective.learned(made)["proxies"]
    assert proxies.shape == (3, made.model.dim)
    np.testing.assert_array_equal(proxies, objective.learned(made)["proxies"])
    made.seed = 1
    assert not np.array_equal(proxies, objective.learned(made)["proxies"])


@pytest.mark.parametrize(
    ("field", "copies", "move"),
    [
        ("mirrored_as_classes", 2, lambda x: x[:, :, ::-1]),
        ("turns_as_classes", 4, lambda x: np.rot90(x, 3, axes=(1, 2))),
    ],
)
def test_changed_images_are_classes_of_their_own(field, copies, move):
    clean = datasets.dataset(config())
    truth = clean.only("train")
    train, wrong = datasets.training_split(config(**{f"dataset__{field}": True}), clean)
    assert len(train) == copies * len(truth) and len(wrong) == len(truth)
    assert len(train.class_names) == 10 * copies
    last = slice(-len(truth), None)
    np.testing.assert_array_equal(train.labels[last], truth.labels + 10 * (copies - 1))
    np.testing.assert_array_equal(train.inputs[last], move(truth.inputs))


@pytest.mark.parametrize(
    ("field", "shape", "wanted"),
    [
        ("mirrored_as_classes", (5,), "images"),
        ("turns_as_classes", (5,), "square images"),
        ("turns_as_classes", (4, 5, 1), "square images"),
    ],
)
def test_inputs_that_cannot_be_mirrored_or_turned_are_refused(field, shape, wanted):
    x, names = np.zeros((30, *shape), np.float32), tuple("abcdefghij")
    everything = data.Dataset(x, np.arange(30) // 3, np.full(30, "train"), names)
    words = re.escape(f"dataset.{field}=True needs {wanted}, not inputs of shape {shape}; set it")
    with pytest.raises(errors.InputError, match=words):
        datasets.training_split(config(**{f"dataset__{field}": True}), everything)


def test_images_are_classes_of_their_own():
    made = config(dataset__images_as_classes=True, batch__small_classes="redraw")
    clean = datasets.dataset(made)
    train, _ = datasets.training_split(made, clean)
    np.testing.assert_array_equal(train.labels, np.arange(len(clean.only("train"))))
    assert train.class_names[7] == "image 7"


def test_a_pool_that_is_too_small_is_refused():
    made = config(batch__pool=0.05, batch__order="random")
    with pytest.raises(errors.InputError, match="fewer than batch.per_class=12"):
        datasets.training_split(made, datasets.dataset(made))


def shards_of_digits(folder):
    """A tar shard of 24 pictures of four classes."""
    with tarfile.open(folder / "part.tar", "w") as shard:
        for number in range(24):
            picture = io.BytesIO()
            PIL.Image.new("L", (8, 8), 10 * number).save(picture, "png")
            for name, content in (("png", picture.getvalue()), ("cls", b"%d" % (number % 4))):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def test_fields_open_tar_shards_and_keep_their_index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards_of_digits(tmp_path)
    fields = {"dataset__name": "webdataset", "dataset__path": str(tmp_path)}
    made = config(**fields, dataset__split_by="class", dataset__image_size=8, dataset__channels=1)
    found = datasets.open_dataset(made.dataset)
    assert (len(found), found.class_names) == (24, ("0", "1", "2", "3"))
    assert len(list((tmp_path / "cache" / "triplet_jax" / "indexes").iterdir())) == 1
    made.dataset.image_column = "jpg"
    with pytest.raises(errors.InputError, match=r"part.tar: the sample '0' has no .jpg"):
        datasets.open_dataset(made.dataset)


def test_fields_open_what_the_package_datasets_opens(tmp_path):
    hub = pytest.importorskip("datasets", reason="pip install 'triplet_jax[huggingface]'")
    shards_of_digits(tmp_path)
    with tarfile.open(tmp_path / "part.tar") as shard:
        pictures = [shard.extractfile(f"{number}.png").read() for number in range(24)]
    rows = {"scan": pictures, "kind": [number % 4 for number in range(24)]}
    hub.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    fields = {"dataset__name": "huggingface", "dataset__path": str(tmp_path / "saved")}
    fields |= {"dataset__image_size": 8, "dataset__channels": 1, "dataset__test_split": ""}
    fields |= {"dataset__index_dir": str(tmp_path / "index"), "dataset__label_column": "kind"}
    found = datasets.open_dataset(config(**fields).dataset)
    assert (len(found), found.class_names) == (24, ("0", "1", "2", "3"))
    assert len(list((tmp_path / "index").iterdir())) == 1
    with pytest.raises(errors.InputError, match="dataset.image_column='kind'"):
        datasets.open_dataset(config(**fields, dataset__image_column="kind").dataset)


def test_fields_open_the_images_that_a_table_lists(tmp_path):
    for number in range(8):
        PIL.Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(8)]
    (tmp_path / "all.csv").write_text("\n".join(["scan,kind", *rows]))
    fields = {"dataset__name": "table", "dataset__path": str(tmp_path / "all.csv")}
    fields |= {"dataset__path_column": "scan", "dataset__label_column": "kind"}
    found = datasets.open_dataset(config(**fields, dataset__root=str(tmp_path)).dataset)
    assert (len(found), found.class_names) == (8, ("a", "b"))
    with pytest.raises(errors.InputError, match="dataset.path='.*all.csv' lacks the columns"):
        datasets.open_dataset(config(**fields | {"dataset__path_column": "file"}).dataset)


def test_fields_open_a_benchmark(tmp_path):
    made = config(dataset__name="cub200", dataset__path=str(tmp_path / "nowhere"))
    with pytest.raises(errors.InputError, match="dataset.path='.*nowhere'"):
        datasets.open_dataset(made.dataset)


def test_many_images_are_decoded_where_they_are_used(tmp_path, monkeypatch):
    for number in range(24):
        folder = tmp_path / f"class {number % 4}"
        folder.mkdir(exist_ok=True)
        PIL.Image.new("L", (8, 8), 10 * number).save(folder / f"{number}.png")
    fields = {"dataset__name": "folder", "dataset__path": str(tmp_path), "batch__per_class": 2}
    made = config(**fields, dataset__image_size=8, dataset__channels=1, batch__classes=2)
    few = datasets.dataset(made)
    monkeypatch.setattr(datasets, "DECODED_AT_ONCE", few.inputs.size - 1)
    many = datasets.dataset(made)
    assert isinstance(few.inputs, np.ndarray)
    assert isinstance(many.inputs, images.Images)
    splits = [
        (datasets.training_split(made, x)[0], datasets.validation_split(made, x))
        for x in (few, many)
    ]
    for a, b in zip(*splits, strict=True):
        np.testing.assert_array_equal(images.load(a.inputs), images.load(b.inputs))
        np.testing.assert_array_equal(a.labels, b.labels)
    assert data.fingerprint(few) == data.fingerprint(many)


def test_noise_is_planted_in_training_alone_and_can_be_dropped():
    clean = datasets.dataset(config())
    made = config(dataset__label_noise=0.4)
    train, wrong = datasets.training_split(made, clean)
    truth = clean.only("train")
    np.testing.assert_array_equal(train.labels != truth.labels, wrong)
    assert wrong.mean() == pytest.approx(0.4, abs=0.01)
    made = config(dataset__label_noise=0.4, dataset__drop_noisy=True)
    kept, _ = datasets.training_split(made, clean)
    np.testing.assert_array_equal(kept.inputs, truth.inputs[~wrong])
    np.testing.assert_array_equal(kept.labels, truth.labels[~wrong])


def test_scores_order_the_pool_and_are_refused_for_other_data(tmp_path):
    clean = datasets.dataset(config())
    truth = clean.only("train")
    found = difficulty.Scores(np.linspace(1, 0, len(truth)), np.arange(10, dtype=np.int32) % 2)
    path = tmp_path / "scores.npz"
    difficulty.write(path, found, clean)
    made = config(batch__scores=str(path), batch__pool=0.3)
    train, _ = datasets.training_split(made, clean)
    index = pk_batches.class_index(made, train)
    members = index.order[: index.count[0]]
    assert (np.diff(train.difficulty[members]) >= 0).all()
    np.testing.assert_array_equal(index.group, np.arange(10) % 2)
    hard = pk_batches.class_index(config(batch__scores=str(path), batch__order="hard"), train)
    assert (np.diff(train.difficulty[hard.order[: hard.count[0]]]) <= 0).all()
    other = datasets.dataset(config(dataset__split_seed=1))
    with pytest.raises(errors.InputError, match="another data set"):
        datasets.training_split(made, other)
    whole = found._replace(embeddings=np.ones((len(truth), 2), np.float32))
    difficulty.write(path, whole, clean)
    train, _ = datasets.training_split(made, clean)
    np.testing.assert_array_equal(train.reference, whole.embeddings)
    for damaged in (
        whole._replace(embeddings=whole.embeddings[:3]),
        whole._replace(embeddings=np.full_like(whole.embeddings, np.inf)),
        whole._replace(embeddings=whole.embeddings[:, 0]),
        found._replace(difficulty=found.difficulty[:3]),
        found._replace(difficulty=np.array(["hard"] * len(truth))),
        found._replace(difficulty=np.full(len(truth), np.nan)),
        found._replace(groups=found.groups[:2]),
        found._replace(groups=np.array(0.5)),
    ):
        difficulty.write(path, damaged, clean)
        with pytest.raises(errors.InputError, match="damaged"):
            datasets.training_split(made, clean)


def test_a_choice_needs_classes_that_exist_and_a_reference(tmp_path):
    clean = datasets.dataset(config())
    count = len(clean.only("train"))
    older = difficulty.Scores(np.zeros(count), np.zeros(10, np.int32))
    path = tmp_path / "scores.npz"
    difficulty.write(path, older, clean)
    fields = {"batch__scores": str(path), "batch__classes": 4}
    with pytest.raises(
        errors.InputError, match="batch.choose_from=11 is more than the 10 training"
    ):
        datasets.training_split(config(**fields, batch__choose_from=11), clean)
    made = config(**fields, batch__choose_from=10)
    with pytest.raises(errors.InputError, match="earlier version, and lacks the embeddings"):
        datasets.training_split(made, clean)
    whole = older._replace(embeddings=np.ones((count, 2), np.float32))
    difficulty.write(path, whole, clean)
    train, _ = datasets.training_split(made, clean)
    assert pk_batches.class_index(made, train).reference.shape == (count, 2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Images with a frame, which a crop ratio leaves out."""
    folder = tmp_path_factory.mktemp("photographs")
    for c in range(3):
        for i in range(6):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[4:12, 4:12] = 50 + 60 * c
            (folder / str(c)).mkdir(exist_ok=True)
            PIL.Image.fromarray(pixels).save(folder / str(c) / f"{i}.png")
    return str(folder)


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_training_reads_whole_pictures_where_it_crops_them_at_random(photographs, placement):
    """And evaluation the part that the crop ratio keeps."""
    fields = {
        "dataset__name": "folder",
        "dataset__path": photographs,
        "dataset__image_size": 8,
        "dataset__crop_ratio": 0.5,
        "dataset__validation_fraction": 0.2,
        "dataset__placement": placement,
        "batch__classes": 2,
        "batch__per_class": 2,
    }
    cropping = config(**fields, augment__resized_crop=0.3)
    everything = datasets.dataset(cropping)
    train, _ = datasets.training_split(cropping, everything)
    assert shows_a_frame(train)
    assert not shows_a_frame(everything)
    assert not shows_a_frame(everything.only("train")), "evaluation embeds training images, too"
    assert not shows_a_frame(datasets.training_split(config(**fields), everything)[0])
    validation = datasets.validation_split(cropping, everything)
    assert isinstance(validation.inputs, np.ndarray) == (placement == "device")
    assert not shows_a_frame(validation)
    plain = datasets.dataset(config(**fields | {"dataset__crop_ratio": 1.0}))
    assert isinstance(plain.inputs, np.ndarray) == (placement == "device")


def shows_a_frame(examples):
    return bool((images.load(examples.inputs)[:, 0, 0] == 0).all())
