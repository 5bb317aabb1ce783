"""Image data sets of tensorflow-datasets, read without TensorFlow."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from triplet_jax import errors
from triplet_jax.data import named_splits, omniglot_lists, splits, tfds_features
from triplet_jax.data.dataset import Dataset, quarter_turns_as_classes
from triplet_jax.data.images import ImageForm, Images
from triplet_jax.data.splits import HeldOut, Labels, Split

# What `name` may be where a program offers other data sets too.
_OTHERS = ("digits", "folder", "table", "webdataset", "huggingface", "arrays", "pairs")


def from_tfds(
    name: str,
    *,
    data_dir: str,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    image_feature: str = "",
    label_feature: str = "",
    train_split: str = "train",
    validation_split: str = "",
    test_split: str = "test",
) -> Dataset:
    """An image data set of tensorflow-datasets, read without TensorFlow.

        omniglot = data.from_tfds(
            "omniglot",
            data_dir="",
            form=images.ImageForm(size=28, channels=1, invert=True),
            split_by="official",
            held_out=data.HeldOut(test=0.0, validation=0.1, seed=0),
        )

    Args:
      name: the builder, such as "omniglot", "cars196" or "stanford_online_products".
      data_dir: where the data set was prepared; empty for the default of tensorflow-datasets,
        which the environment variable TFDS_DATA_DIR sets.
      form: what every image is brought to when it is read.
      split_by: "official" keeps the splits named below; where none is named for validation,
        `splits.with_test` holds it out of training, with Omniglot's alphabets as groups.
        "class" trains on the first half of all classes and tests on the second, as is usual in
        metric learning, and "image" holds out images of every class; both join all splits that
        are named below. "vinyals" is for Omniglot alone: the three lists of `omniglot_lists`, with
        every quarter turn of a character as a class of its own, in all splits.
      held_out: the share of validation, and for "image" of the test.
      image_feature: the name of the image in a record; empty to let `tfds_features.choose` find
        it.
      label_feature: the name of the class in a record, such as "class_id", or
        "identity/Identity_No" where it is nested; empty to find it.
      train_split: the builder's split for training; several are joined, as in "train+extra".
      validation_split: the builder's split for validation; empty to hold it out of training.
      test_split: the builder's split for the test.

    Raises:
      InputError: there is no such data set, feature or split, it was not prepared, or its files
        cannot be read.
    """
    errors.check_known("split_by", split_by, ("official", "class", "image", "vinyals"))
    builder = _builder(name, data_dir)
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    roles = named_splits.roles(
        f"name={name!r}", list(builder.info.splits), wanted, needs_all=split_by == "official"
    )
    features = builder.info.features
    image, label = tfds_features.choose(name, builder.info, image_feature, label_feature)
    with _reading(name, data_dir):
        sources = [_source(builder, split) for split in roles]
        labels, class_names, groups = _classes(name, sources, features, label)
    official = np.repeat(list(roles.values()), list(map(len, sources)))
    inputs = Images(_EncodedImages(sources, features, image), form)
    if split_by == "vinyals":
        split = omniglot_lists.split(labels, class_names)
        characters = Dataset(inputs, labels, split, class_names, groups)
        return quarter_turns_as_classes(characters)
    split = _split(labels, official, groups, split_by, held_out)
    return Dataset(inputs, labels, split, class_names, groups)


# -- the builder and its splits ----------------------------------------------------------


@contextlib.contextmanager
def _reading(name: str, data_dir: str) -> Iterator[None]:
    """Adds to an error of tensorflow-datasets, or of its readers, what can be done about it."""
    try:
        yield
    except errors.InputError:
        raise
    except ImportError as error:
        raise _unloadable(name, error) from error
    except (PermissionError, TimeoutError) as error:
        raise errors.InputError(
            f"name={name!r} cannot be read: {error}. Its files may be whole: see whether this user"
            " may read them, and whether the disk answers."
        ) from error
    except Exception as error:  # damage makes the readers raise many kinds
        errors.check_answers(error)
        raise errors.InputError(
            f"name={name!r} cannot be read: {str(error).strip() or repr(error)}\nIf its"
            " files are damaged, put them back, or remove them and prepare it again on a machine"
            f" with internet:\n{_preparing(name, data_dir)}"
        ) from error


def _unloadable(name: str, error: Exception) -> errors.InputError:
    """The error for a builder whose code needs TensorFlow, or a file that is not shipped."""
    return errors.InputError(
        f"name={name!r} cannot be read: tensorflow-datasets fails to load its code for it:"
        f" {str(error).strip() or repr(error)}. Install what it needs, or choose another data set."
    )


def _builder(name: str, data_dir: str) -> Any:
    """The `tfds.core.DatasetBuilder` of a prepared data set.

    Only code that tensorflow-datasets ships is run. A builder that is loaded from its folder may
    name any module to import.
    """
    import tensorflow_datasets as tfds

    parts = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name, re.ASCII)
    known = tfds.list_builders(with_community_datasets=False)
    if not parts or parts[1] not in known:
        errors.check_known("name", name, [*_OTHERS, *known])
    try:
        builder_class = tfds.builder_cls(parts[1])
    except Exception as error:
        raise _unloadable(name, error) from error
    if parts[2]:
        choices = [f"{parts[1]}/{config}" for config in builder_class.builder_configs]
        errors.check_known("name", f"{parts[1]}/{parts[2]}", choices or [parts[1]])
    with _reading(name, data_dir):
        try:
            builder = builder_class(data_dir=data_dir or None, config=parts[2], version=parts[3])
        except AssertionError as error:  # there is no such version
            raise errors.InputError(f"name={name!r} is not known: {error}") from error
    folder = pathlib.Path(builder.data_path)
    if not (folder / "dataset_info.json").exists():
        there = sorted(file.parent.name for file in folder.parent.glob("*/dataset_info.json"))
        raise errors.InputError(
            f"name={name!r} is not prepared in {folder.parent}"
            + (f", which has {', '.join(there)} but not {folder.name}" if there else "")
            + f". Prepare it once on a machine with internet:\n{_preparing(name, data_dir)}\nor"
            " say where it is by data_dir=FOLDER, or by the environment variable TFDS_DATA_DIR."
        )
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise errors.InputError(
            f"name={name!r} is prepared in {folder} as {file_format}, which only TensorFlow reads."
            " Prepare it in a folder of its own as array_record, and set data_dir=FOLDER to that"
            f" folder:\n{_preparing(name, 'FOLDER')}"
        )
    return builder


def _preparing(name: str, data_dir: str) -> str:
    """The commands that prepare a data set; only they need TensorFlow."""
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        "  pip install 'tensorflow>=2.20'\n"
        '  python -c "import tensorflow_datasets as tfds;'
        f" tfds.builder('{name}', file_format='array_record'{where}).download_and_prepare()\""
    )


def _split(
    labels: Labels,
    official: Split,
    groups: Int[np.ndarray, "classes"] | None,
    split_by: str,
    held_out: HeldOut,
) -> Split:
    if split_by == "image":
        return splits.at_random(labels, held_out, by="image")
    if split_by == "official" and "validation" in official:
        return official
    if split_by == "class":
        is_test = labels >= (labels.max() + 1) // 2
    else:
        is_test = official == "test"
    return splits.with_test(labels, is_test, held_out, groups=groups)


# -- records -----------------------------------------------------------------------------


def _source(builder: Any, split: str) -> Sequence[bytes]:
    """The records of a split, each as bytes."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split, deserialize_method=raw)


class _Columns(Sequence):
    """Some features of the records of several sources, as one sequence of tuples.

    The other features are not decoded. tfds.decode.PartialDecoding, which is meant for that, needs
    TensorFlow.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[bytes]],
        features: Any,
        paths: Sequence[tfds_features.Path],
    ):
        self._sources, self._paths = sources, paths
        self._record = tfds_features.subset(features, paths)
        self._decoders = None

    def __len__(self):
        return sum(map(len, self._sources))

    def __getitem__(self, position: int) -> tuple:
        for source in self._sources:
            if position < len(source):
                record = self._record.deserialize_example_np(
                    source[position], decoders=self._decoders
                )
                return tuple(_leaf(record, path) for path in self._paths)
            position -= len(source)
        raise IndexError(position)


class _EncodedImages(_Columns):
    """The images, each as the bytes of its file."""

    def __init__(self, sources: Sequence[Sequence[bytes]], features: Any, path: tfds_features.Path):
        import tensorflow_datasets as tfds

        super().__init__(sources, features, [path])
        self._decoders = tfds.decode.SkipDecoding()
        for name in reversed(path):
            self._decoders = {name: self._decoders}

    def __getitem__(self, position: int) -> bytes:
        return super().__getitem__(position)[0]


def _leaf(record: Any, path: tfds_features.Path) -> Any:
    for name in path:
        record = record[name]
    return record


def _classes(
    name: str, sources: Sequence[Sequence[bytes]], features: Any, label: tfds_features.Path
) -> tuple[Labels, tuple[str, ...], Int[np.ndarray, "classes"] | None]:
    """The class of every example, from 0 on; the names of the classes; their groups, or None."""
    has_alphabets = "alphabet" in features
    paths = [label, *([("alphabet",)] if has_alphabets else [])]
    values, *alphabets = zip(*_Columns(sources, features, paths), strict=True)
    label_ids, labels = np.unique(np.asarray(values), return_inverse=True)
    labels = labels.astype(np.int32)
    to_name = getattr(_leaf(features, label), "int2str", None)
    if to_name and label_ids[0] < 0:
        raise errors.InputError(
            f"name={name!r}: {(labels == 0).sum()} of {len(labels)} examples have the label"
            f" {label_ids[0]}, which marks those without one. Leave out their split: name"
            " the others by train_split=, validation_split= and test_split=."
        )
    names = tuple(to_name(int(i)) if to_name else _text(i) for i in label_ids)
    groups = _groups(labels, np.asarray(alphabets[0], np.int32), len(names)) if alphabets else None
    return labels, names, groups


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _groups(
    labels: Labels, alphabets: Int[np.ndarray, "examples"], classes: int
) -> Int[np.ndarray, "classes"] | None:
    """The group of every class; None if a class has examples of several."""
    groups = np.zeros(classes, np.int32)
    groups[labels] = alphabets
    return groups if (groups[labels] == alphabets).all() else None
