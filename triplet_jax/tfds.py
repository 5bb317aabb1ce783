"""Image data sets of tensorflow-datasets, read without TensorFlow."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors, splits
from triplet_jax.dataset import Dataset
from triplet_jax.images import ImageForm, Images


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
        return splits.at_random(
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
    return splits.hold_out_of_rest(
        labels, held_test, validation_fraction, by=by, seed=seed, groups=groups
    )
