"""Image data sets of tensorflow-datasets, read without TensorFlow."""

import contextlib
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors
from triplet_jax.data import splits, tfds_features
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.images import ImageForm, Images


def from_tfds(
    name: str,
    *,
    data_dir: str,
    form: ImageForm,
    split_by: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    image_feature: str = "",
    label_feature: str = "",
    train_split: str = "train",
    validation_split: str = "",
    test_split: str = "test",
) -> Dataset:
    """An image data set of tensorflow-datasets, read without TensorFlow.

    Args:
      name: of the builder, such as "omniglot", "cars196" or "stanford_online_products".
      data_dir: where it was prepared; empty for the default of tensorflow-datasets, which
        the environment variable TFDS_DATA_DIR sets.
      form: what every image is brought to.
      split_by: "official" keeps the splits that are named below, and takes validation out of train
        where none is named: whole groups (Omniglot's alphabets) where classes have groups, else
        whole classes where train and test share none, else images. "class" puts the first half of
        all classes into training and tests on the second, as is usual in metric learning, and
        "image" holds out images of every class; both of the examples of all splits that are named.
      test_fraction: held out for "image".
      validation_fraction: held out of training.
      seed: of the choice.
      image_feature: the name of the image in a record; empty to find it by `tfds_features.choose`.
      label_feature: the name of the class, such as "class_id", or "identity/Identity_No" of a
        nested one; empty to find it.
      train_split: the builder's split for training; several are joined, as in "train+extra".
      validation_split: the builder's split for validation; empty to hold it out of training.
      test_split: the builder's split for the test.

    Raises:
      InputError: there is no such data set, feature or split, it was not prepared, or its files
        cannot be read.
    """
    errors.check_known("dataset.split_by", split_by, ("official", "class", "image"))
    builder = _builder(name, data_dir)
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    roles = _roles(name, list(builder.info.splits), wanted, needs_all=split_by == "official")
    features = builder.info.features
    image, label = tfds_features.choose(name, builder.info, image_feature, label_feature)
    with _reading(name, data_dir):
        sources = [_source(builder, split) for split in roles]
        labels, class_names, groups = _classes(name, sources, features, label)
    official = np.repeat(list(roles.values()), list(map(len, sources)))
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    split = _split(labels, official, groups, split_by, seed=seed, **fractions)
    encoded = _EncodedImages(sources, features, image)
    return Dataset(Images(encoded, form), labels, split, class_names, groups)


# -- the builder and its splits ----------------------------------------------------------


@contextlib.contextmanager
def _reading(name, data_dir):
    """Says of an error of tensorflow-datasets or of its readers what can be done about it."""
    try:
        yield
    except errors.InputError:
        raise
    except ImportError as error:
        raise _unloadable(name, error) from error
    except (PermissionError, TimeoutError) as error:
        raise errors.InputError(
            f"dataset.name={name!r} cannot be read: {error}. Its files need not be damaged: see"
            " whether this user may read them, and whether the disk answers."
        ) from error
    except Exception as error:  # whatever damage makes the readers raise
        raise errors.InputError(
            f"dataset.name={name!r} cannot be read: {str(error).strip() or repr(error)}\nIf its"
            " files are damaged, put them back, or remove them and prepare it again on a machine"
            f" with internet:\n{_preparing(name, data_dir)}"
        ) from error


def _unloadable(name, error):
    """The code of some builders needs TensorFlow, and that of others a file that is not shipped."""
    return errors.InputError(
        f"dataset.name={name!r} cannot be read: tensorflow-datasets fails to load its code for it:"
        f" {str(error).strip() or repr(error)}. Install what it needs, or choose another data set."
    )


def _builder(name, data_dir):
    """By the code of tensorflow-datasets alone: a file may name any module for it to import."""
    import tensorflow_datasets as tfds

    parts = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name, re.ASCII)
    known = tfds.list_builders(with_community_datasets=False)
    if not parts or parts[1] not in known:
        errors.check_known("dataset.name", name, ["digits", "folder", "arrays", "pairs", *known])
    try:
        builder_class = tfds.builder_cls(parts[1])
    except Exception as error:
        raise _unloadable(name, error) from error
    if parts[2]:
        choices = [f"{parts[1]}/{config}" for config in builder_class.builder_configs]
        errors.check_known("dataset.name", f"{parts[1]}/{parts[2]}", choices or [parts[1]])
    with _reading(name, data_dir):
        try:
            builder = builder_class(data_dir=data_dir or None, config=parts[2], version=parts[3])
        except AssertionError as error:  # there is no such version
            raise errors.InputError(f"dataset.name={name!r} is not known: {error}") from error
    folder = pathlib.Path(builder.data_path)
    if not (folder / "dataset_info.json").exists():
        there = sorted(file.parent.name for file in folder.parent.glob("*/dataset_info.json"))
        raise errors.InputError(
            f"dataset.name={name!r} is not prepared in {folder.parent}"
            + (f", which has {', '.join(there)} but not {folder.name}" if there else "")
            + f". Prepare it once on a machine with internet:\n{_preparing(name, data_dir)}\nor"
            " set dataset.data_dir, or the environment variable TFDS_DATA_DIR, to where it is."
        )
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise errors.InputError(
            f"dataset.name={name!r} is prepared in {folder} as {file_format}, which TensorFlow"
            " alone reads. Prepare it in a folder of its own as array_record, and set"
            f" dataset.data_dir to that folder:\n{_preparing(name, 'FOLDER')}"
        )
    return builder


def _preparing(name, data_dir):
    """The commands; they need TensorFlow, which training does not."""
    where = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        "  pip install 'tensorflow>=2.20'\n"
        '  python -c "import tensorflow_datasets as tfds;'
        f" tfds.builder('{name}', file_format='array_record'{where}).download_and_prepare()\""
    )


def _roles(name, there, wanted, *, needs_all):
    """What each split of the builder is for, of those that are named in `wanted` by their role."""
    roles = {}
    for role, joined in wanted.items():
        for split in filter(None, joined.split("+")):
            if split in roles:
                raise errors.InputError(
                    f"dataset.{role}_split={joined!r}: {split!r} is used for {roles[split]} too."
                    " Name each split once."
                )
            if split in there:
                roles[split] = role
            elif needs_all or split != role:
                raise errors.InputError(
                    f"dataset.{role}_split={joined!r}: dataset.name={name!r} has no split"
                    f" {split!r}, but {', '.join(there)}. Name some of these, or set"
                    " dataset.split_by to 'class' or 'image'."
                )
    for role in ("train", "test") if needs_all else ():
        if role not in roles.values():
            raise errors.InputError(
                f"dataset.{role}_split={wanted[role]!r} must name one of the splits of dataset.name"
                f"={name!r}, {', '.join(there)}, for dataset.split_by='official'."
            )
    if not roles:
        raise errors.InputError(
            f"dataset.name={name!r} has neither of the splits train and test, but"
            f" {', '.join(there)}. Set dataset.train_split to those to use, joined by '+'."
        )
    return roles


def _split(labels, official, groups, split_by, *, test_fraction, validation_fraction, seed):
    """The split of every example."""
    if split_by == "image":
        return splits.at_random(
            labels,
            by="image",
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            seed=seed,
        )
    if split_by == "official" and "validation" in official:
        return official
    if split_by == "class":
        held_test = labels >= (labels.max() + 1) // 2
    else:
        held_test = official == "test"
    shared = np.intersect1d(labels[~held_test], labels[held_test]).size > 0
    by = "image" if shared else "class" if groups is None else "group"
    return splits.hold_out_of_rest(
        labels, held_test, validation_fraction, by=by, seed=seed, groups=groups
    )


# -- records -----------------------------------------------------------------------------


def _source(builder, split):
    """The records of a split as bytes."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split, deserialize_method=raw)


class _Columns(Sequence):
    """Some features of several sources of records, as one sequence of tuples.

    Nothing else of a record is decoded: tfds.decode.PartialDecoding, which is for that, needs
    TensorFlow.
    """

    def __init__(self, sources: list, features, paths: Sequence[tfds_features.Path]):
        self._sources, self._paths = sources, paths
        self._record = tfds_features.subset(features, paths)
        self._decoders = None

    def __len__(self):
        return sum(map(len, self._sources))

    def __getitem__(self, position):
        for source in self._sources:
            if position < len(source):
                record = self._record.deserialize_example_np(
                    source[position], decoders=self._decoders
                )
                return tuple(_leaf(record, path) for path in self._paths)
            position -= len(source)
        raise IndexError(position)


class _EncodedImages(_Columns):
    """The images as the bytes of their files."""

    def __init__(self, sources: list, features, path: tfds_features.Path):
        import tensorflow_datasets as tfds

        super().__init__(sources, features, [path])
        self._decoders = tfds.decode.SkipDecoding()
        for name in reversed(path):
            self._decoders = {name: self._decoders}

    def __getitem__(self, position):
        return super().__getitem__(position)[0]


def _leaf(record, path):
    for name in path:
        record = record[name]
    return record


def _classes(name, sources, features, label):
    """The class of every example, from 0 on; the names of classes; their groups, or None."""
    has_alphabets = "alphabet" in features
    paths = [label, *([("alphabet",)] if has_alphabets else [])]
    values, *alphabets = zip(*_Columns(sources, features, paths), strict=True)
    label_ids, labels = np.unique(np.asarray(values), return_inverse=True)
    labels = labels.astype(np.int32)
    to_name = getattr(_leaf(features, label), "int2str", None)
    if to_name and label_ids[0] < 0:
        raise errors.InputError(
            f"dataset.name={name!r}: {(labels == 0).sum()} of {len(labels)} examples have the label"
            f" {label_ids[0]}, which marks those without one. Leave their split out of"
            " dataset.train_split, dataset.validation_split and dataset.test_split."
        )
    names = tuple(to_name(int(i)) if to_name else _text(i) for i in label_ids)
    groups = _groups(labels, np.asarray(alphabets[0], np.int32), len(names)) if alphabets else None
    return labels, names, groups


def _text(value):
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _groups(labels, alphabets, classes):
    """The group of every class; None where a class has several."""
    groups = np.zeros(classes, np.int32)
    groups[labels] = alphabets
    return groups if (groups[labels] == alphabets).all() else None
