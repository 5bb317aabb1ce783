"""Data sets: where they come from, and how they are split."""

import dataclasses
import hashlib
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from triplet_jax import errors, folders
from triplet_jax.file_names import to_text
from triplet_jax.images import ImageForm, Images

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with integer labels.

    Args:
      inputs: images `[examples, height, width, channels]` of uint8, features
        `[examples, features]` of float32, or `Images`, which are decoded when they are read.
      labels: the class of every example, an index into `class_names`.
      split: of every example, one of `SPLITS`.
      class_names: of every class.
      groups: of every class, the number of the group it belongs to, such as an alphabet;
        None where classes have no groups.
      difficulty: of every example, 0 easy and 1 hard; None where nobody scored it.
      pair_shapes: the shapes of an example of either array, where `pairs` made the examples of two.
      notes: what a user should know of how the source was read, such as files that were left out.
    """

    inputs: np.ndarray | Images
    labels: Int[np.ndarray, "examples"]
    split: np.ndarray
    class_names: tuple[str, ...]
    groups: Int[np.ndarray, "classes"] | None = None
    difficulty: Float[np.ndarray, "examples"] | None = None
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Int[np.ndarray, "chosen"]) -> "Dataset":
        """The examples at these positions; the numbers of the classes stay."""
        return dataclasses.replace(
            self,
            inputs=self.inputs[positions],
            labels=self.labels[positions],
            split=self.split[positions],
            difficulty=None if self.difficulty is None else self.difficulty[positions],
        )

    def only(self, split: str) -> "Dataset":
        """The examples of one split."""
        return self.take(np.flatnonzero(self.split == split))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])


def fingerprint(dataset: Dataset) -> str:
    """A mark of the training examples: shape, places, labels, classes, and some of the inputs.

    All inputs of a large set would take long to read; of it 64 are, at equal distances.
    """
    train = np.flatnonzero(dataset.split == "train")
    some = train[np.linspace(0, len(train) - 1, min(len(train), 64)).astype(int)]
    mark = hashlib.sha256(f"{dataset.input_shape} {dataset.class_names}".encode())
    mark.update(train.astype(np.int64).tobytes())
    mark.update(dataset.labels[train].astype(np.int64).tobytes())
    mark.update(np.ascontiguousarray(dataset.inputs[some]).tobytes())
    return mark.hexdigest()


# -- splits ------------------------------------------------------------------------------


def hold_out(
    labels: Int[np.ndarray, "examples"],
    fraction: float,
    *,
    by: str,
    seed: int,
    groups: Int[np.ndarray, "classes"] | None = None,
) -> Bool[np.ndarray, "examples"]:
    """Chooses examples to hold out.

    Args:
      labels: the class of every example.
      fraction: how much to hold out, in [0, 1).
      by: "image" holds out this fraction of every class's images, but never all, "class" whole
        classes, "group" whole groups of classes.
      seed: of the choice.
      groups: of every class, for `by="group"`.

    Returns:
      Which examples are held out.
    """
    random = np.random.default_rng(seed)
    if by == "image":
        held = np.zeros(len(labels), bool)
        for c in np.unique(labels):
            members = random.permutation(np.flatnonzero(labels == c))
            held[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
        return held
    unit = labels if by == "class" else groups[labels]
    units = random.permutation(np.unique(unit))
    return np.isin(unit, units[: round(fraction * len(units))])


def _split(labels, *, by, test_fraction, validation_fraction, seed):
    """The split of every example, where the test is held out as validation is."""
    held_test = hold_out(labels, test_fraction, by=by, seed=seed)
    of_rest = validation_fraction / (1 - test_fraction)
    return _split_rest(labels, held_test, of_rest, by=by, seed=seed + 1)


def _split_rest(labels, held_test, validation_fraction, *, by, seed, groups=None):
    """The split of every example; validation is held out of what is not for the test."""
    split = np.where(held_test, "test", "train").astype("<U10")
    rest = np.flatnonzero(~held_test)
    held = hold_out(labels[rest], validation_fraction, by=by, seed=seed, groups=groups)
    split[rest[held]] = "validation"
    return split


# -- sources -----------------------------------------------------------------------------


def digits(*, test_fraction: float, validation_fraction: float, seed: int) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits". The ten
    classes are the same in every split; images are held out.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    split = _split(
        labels,
        by="image",
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    return Dataset(images, labels, split, tuple(map(str, range(10))))


class _EncodedColumn(Sequence):
    """One field of several sources of records, as one sequence."""

    def __init__(self, sources: list, field: str):
        self._sources, self._field = sources, field

    def __len__(self):
        return sum(map(len, self._sources))

    def __getitem__(self, position):
        for source in self._sources:
            if position < len(source):
                return source[position][self._field]
            position -= len(source)
        raise IndexError(position)


def from_tfds(
    name: str,
    *,
    data_dir: str,
    form: ImageForm,
    split_by: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> Dataset:
    """An image data set of tensorflow-datasets, read without TensorFlow.

    Args:
      name: of the builder, such as "omniglot", "cars196" or "stanford_online_products".
      data_dir: where it was prepared; empty for the default of tensorflow-datasets, which
        the environment variable TFDS_DATA_DIR sets.
      form: what every image is brought to.
      split_by: "official" keeps the builder's splits "train" and "test" and takes
        validation out of train: whole groups (Omniglot's alphabets) where classes have
        groups, else whole classes where train and test share none, else images. "class"
        puts the first half of all classes into training and tests on the second, as is
        usual in metric learning, and "image" holds out images of every class.
      test_fraction: held out for "image".
      validation_fraction: held out of training.
      seed: of the choice.

    Raises:
      InputError: there is no such data set, or it was not prepared, or its files are damaged.
    """
    errors.check_known("dataset.split_by", split_by, ("official", "class", "image"))
    try:
        encoded, labels, official, class_names, groups = _read_tfds(name, data_dir)
    except errors.InputError:
        raise
    except Exception as error:  # whatever tensorflow-datasets and its readers raise
        raise errors.InputError(
            f"dataset.name={name!r} cannot be read: {str(error).strip() or repr(error)}\nGive a"
            " config and a version that it has, or, if its files are damaged, remove them and"
            f" prepare it again on a machine with internet:\n{_preparing(name, data_dir)}"
        ) from error
    split = _tfds_split(
        labels, official, groups, split_by, test_fraction, validation_fraction, seed
    )
    return Dataset(Images(encoded, form), labels, split, class_names, groups)


def _read_tfds(name, data_dir):
    """Encoded images, and the label and the official split of each; names and groups of classes."""
    builder = _tfds_builder(name, data_dir)
    image_field, label_field = builder.info.supervised_keys or ("image", "label")
    sources, splits = _tfds_records(builder, name, data_dir, image_field)
    labels, alphabets = [], []
    for source in sources:
        for record in source:
            labels.append(record[label_field])
            alphabets.append(record.get("alphabet", -1))
    official = np.repeat(splits, [len(source) for source in sources])
    label_ids, labels = np.unique(np.asarray(labels), return_inverse=True)
    labels = labels.astype(np.int32)
    label_feature = builder.info.features[label_field]
    class_names = tuple(
        label_feature.int2str(int(i)) if hasattr(label_feature, "int2str") else str(i)
        for i in label_ids
    )
    groups = None
    if min(alphabets) >= 0:
        groups = np.zeros(len(class_names), np.int32)
        groups[labels] = alphabets
    return _EncodedColumn(sources, image_field), labels, official, class_names, groups


def _tfds_builder(name, data_dir):
    """By the code of tensorflow-datasets alone: a file may name any module for it to import."""
    import tensorflow_datasets as tfds

    parts = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name, re.ASCII)
    known = tfds.list_builders(with_community_datasets=False)
    if not parts or parts[1] not in known:
        errors.check_known("dataset.name", name, ["digits", "folder", "arrays", "pairs", *known])
    return tfds.builder_cls(parts[1])(
        data_dir=data_dir or None, config=parts[2], version=parts[3], file_format="array_record"
    )


def _tfds_records(builder, name, data_dir, image_field):
    import tensorflow_datasets as tfds

    unprepared = errors.InputError(
        f"dataset.name={name!r} is not prepared in {builder.data_path.parent}. Prepare it once on a"
        f" machine with internet:\n{_preparing(name, data_dir)}\nor set dataset.data_dir, or the"
        " environment variable TFDS_DATA_DIR, to where it is."
    )
    if not pathlib.Path(builder.data_path, "dataset_info.json").exists():
        raise unprepared
    splits = [s for s in ("train", "test") if s in builder.info.splits]
    try:
        sources = [
            builder.as_data_source(s, decoders={image_field: tfds.decode.SkipDecoding()})
            for s in splits
        ]
    except NotImplementedError as error:
        raise unprepared from error
    return sources, splits


def _preparing(name, data_dir):
    """The commands; they need TensorFlow, which training does not."""
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        "  pip install 'tensorflow>=2.20'\n"
        '  python -c "import tensorflow_datasets as tfds;'
        f" tfds.builder('{name}', file_format='array_record'{where}).download_and_prepare()\""
    )


def _tfds_split(labels, official, groups, split_by, test_fraction, validation_fraction, seed):
    if split_by == "image":
        return _split(
            labels,
            by="image",
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            seed=seed,
        )
    if split_by == "class":
        held_test = labels >= (labels.max() + 1) // 2
    else:
        held_test = official == "test"
    shared = np.intersect1d(labels[~held_test], labels[held_test]).size > 0
    by = "image" if shared else "class" if groups is None else "group"
    return _split_rest(labels, held_test, validation_fraction, by=by, seed=seed, groups=groups)


def folder(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    bad_images: str,
    class_level: int = 1,
) -> Dataset:
    """A folder with a folder of images for every class, listed by `folders.find`.

    Args:
      path: the folder; `path/cat/1.jpg` is an image of the class "cat".
      form: what every image is brought to.
      split_by: "image" holds out images of every class, "class" whole classes.
      test_fraction: held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.
      bad_images: "refuse" or "skip" files that are no readable image.
      class_level: how many folders make the class; with 2, `path/cat/tabby/1.jpg` is of the class
        "cat/tabby".

    Raises:
      InputError: there is no such folder, it holds no class folders with images, a file cannot be
        read as an image, or a link leads nowhere.
    """
    errors.check_known("dataset.split_by", split_by, ("image", "class"))
    root = pathlib.Path(path)
    if not path or not root.is_dir():
        raise errors.InputError(
            f"dataset.path={path!r} is not a folder. Give a folder that holds one folder of"
            " JPEG or PNG images for every class."
        )
    listing = folders.in_classes(folders.find(root, folders.Layout(class_level=class_level)))
    listing = folders.only_images(listing, bad_images, field="dataset.bad_images")
    if not listing.files:
        raise errors.InputError(
            f"dataset.path={path!r} holds no images in class folders. Put the images of every"
            f" class into a folder of its own, such as {root / 'cat' / '1.jpg'}."
        )
    names, labels = np.unique([file.label for file in listing.files], return_inverse=True)
    labels = labels.astype(np.int32)
    split = _split(
        labels,
        by=split_by,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    notes = (f"passed over in {to_text(path)}:\n{listing.report}",) if listing.report else ()
    encoded = Images([str(file) for file in listing.paths], form)
    return Dataset(encoded, labels, split, tuple(map(str, names)), notes=notes)


def arrays(
    path: str, *, split_by: str, test_fraction: float, validation_fraction: float, seed: int
) -> Dataset:
    """An .npz file with `x`, uint8 images or float features, and `y`, integer labels.

    Args:
      path: the file. `x` is `[examples, height, width, channels]` of uint8, with 1 or 3
        channels, or `[examples, features]` of floats; `y` is `[examples]`.
      split_by: "image" holds out examples of every class, "class" whole classes.
      test_fraction: held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.

    Raises:
      InputError: the file, its keys, shapes or types are not these, or a value is not finite.
    """
    errors.check_known("dataset.split_by", split_by, ("image", "class"))
    x, y = read_arrays(path, ("x", "y"), field="dataset.path")
    x = _images_or_features(path, "x", x)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) != len(x):
        raise errors.InputError(
            f"dataset.path={path!r}: y has shape {y.shape} and dtype {y.dtype}. It must be"
            f" integers [examples], one for each of the {len(x)} rows of x."
        )
    names, labels = np.unique(y, return_inverse=True)
    labels = labels.astype(np.int32)
    split = _split(
        labels,
        by=split_by,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    return Dataset(x, labels, split, tuple(map(str, names)))


def pairs(path: str, *, test_fraction: float, validation_fraction: float, seed: int) -> Dataset:
    """An .npz file with `x` and `pair`, where row i of one belongs to row i of the other.

    A pair is a class of two examples, `2i` from `x` and `2i + 1` from `pair`, and stays whole in
    every split. Inputs of both are brought to one shape: flattened, images scaled to [0, 1], filled
    up with zeros, and at the end 0 for a row of `x` and 1 for one of `pair`.

    Args:
      path: the file. Each array is as `x` in `arrays`, and their shapes may differ.
      test_fraction: of the pairs, held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.

    Raises:
      InputError: the file, its keys, shapes or types are not these, or a value is not finite.
    """
    names = ("x", "pair")
    read = read_arrays(path, names, field="dataset.path")
    parts = [_images_or_features(path, *part) for part in zip(names, read, strict=True)]
    n, others = map(len, parts)
    if n != others:
        raise errors.InputError(
            f"dataset.path={path!r}: x has {n} rows and pair has {others}. Row i of one belongs to"
            " row i of the other, so that there must be as many."
        )
    flat = [_flat(x) for x in parts]
    inputs = np.zeros((2 * n, max(x.shape[1] for x in flat) + 1), np.float32)
    for which, x in enumerate(flat):
        inputs[which::2, : x.shape[1]] = x
        inputs[which::2, -1] = which
    labels = np.repeat(np.arange(n, dtype=np.int32), 2)
    split = _split(
        labels,
        by="class",
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    shapes = tuple(x.shape[1:] for x in parts)
    class_names = tuple(f"pair {i}" for i in range(n))
    return Dataset(inputs, labels, split, class_names, pair_shapes=shapes)


def _flat(x):
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    return rows / np.float32(255) if x.dtype == np.uint8 else rows


def _images_or_features(path, name, x):
    """An array of a file: images of uint8 as they are, features as float32."""
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return x
    if not (np.issubdtype(x.dtype, np.floating) and x.ndim == 2):
        raise errors.InputError(
            f"dataset.path={path!r}: {name} has shape {x.shape} and dtype {x.dtype}. It must"
            " be uint8 images [examples, height, width, 1 or 3] or float features"
            " [examples, features]."
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and said to be
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise errors.InputError(
            f"dataset.path={path!r}: {len(rows)} rows of {name} have NaN or infinite values, the"
            f" first is row {rows[0]}. Remove or fill them."
        )
    return x


def read_arrays(path: str, names: Sequence[str], *, field: str) -> list[np.ndarray]:
    """Arrays of an .npz file, by name.

    Args:
      path: the file.
      names: of the arrays.
      field: what the file is called in messages.

    Raises:
      InputError: it cannot be read, or lacks one of them.
    """
    if not os.path.isfile(path):
        raise errors.InputError(f"{field}={path!r} is not a file. Give an .npz with {names}.")
    try:
        with zipfile.ZipFile(path) as file:
            present = sorted(name.removesuffix(".npy") for name in file.namelist())
            missing = sorted(set(names) - set(present))
            arrays = [_read_array(file, name) for name in names if name not in missing]
    except Exception as error:  # whatever damage makes numpy, zipfile and zlib raise
        raise errors.InputError(
            f"{field}={path!r} cannot be read as an .npz file: {error}"
        ) from error
    if missing:
        raise errors.InputError(f"{field}={path!r} lacks {missing}; it has the keys {present}.")
    return arrays


def _read_array(file, name):
    with file.open(f"{name}.npy") as member:
        # Without pickle: a file that someone shared must not be able to run code.
        array = np.lib.format.read_array(member, allow_pickle=False)
        # To the end, where its checksum is compared: numpy's own loader stops before it if the
        # damage makes an array smaller.
        if member.read(1):
            raise ValueError(f"{name} is followed by what is no part of it")
    return array


def images_as_classes(dataset: Dataset) -> Dataset:
    """A class for every image, whatever its label: two random views of it are the positives."""
    return dataclasses.replace(
        dataset,
        labels=np.arange(len(dataset), dtype=np.int32),
        class_names=tuple(f"image {i}" for i in range(len(dataset))),
        groups=None,
    )


def quarter_turns_as_classes(dataset: Dataset) -> Dataset:
    """Four classes for each: the images turned by 0, 90, 180 and 270 degrees.

    For drawings whose turned form is another character (Vinyals et al. 2016 on Omniglot).
    Class `c` turned k times is class `k * classes + c`.
    """
    classes = len(dataset.class_names)
    if isinstance(dataset.inputs, np.ndarray):
        turned = np.concatenate([np.rot90(dataset.inputs, k, axes=(1, 2)) for k in range(4)])
    else:
        everything = np.tile(np.arange(len(dataset)), 4)
        turns = np.repeat(np.arange(4), len(dataset))
        turned = dataset.inputs[everything].turned(turns)
    return Dataset(
        inputs=turned,
        labels=np.concatenate([dataset.labels + k * classes for k in range(4)]).astype(np.int32),
        split=np.tile(dataset.split, 4),
        class_names=tuple(
            f"{name} turned {90 * k}" if k else name
            for k in range(4)
            for name in dataset.class_names
        ),
        groups=None if dataset.groups is None else np.tile(dataset.groups, 4),
        difficulty=None if dataset.difficulty is None else np.tile(dataset.difficulty, 4),
    )
