"""Small data sets as tensorflow-datasets prepares them, made without TensorFlow.

Their features are those of the real builders, and tensorflow-datasets serialises the examples.
"""

import io
import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

VERSION = "3.0.0"


def omniglot(data_dir: pathlib.Path, classes: int = 6, images: int = 3) -> pathlib.Path:
    """Classes with a few images each, of which train has the first half.

    Returns:
      The folder of its files.
    """

    def examples(labels):
        for label in map(int, np.repeat(labels, images)):
            yield {
                "image": picture(40 * label),
                "label": label,
                "alphabet": label // 2,
                "alphabet_char_id": label,
            }

    splits = {
        "train": examples(range(classes // 2)),
        "test": examples(range(classes // 2, classes)),
    }
    folder = write("omniglot", data_dir, splits)
    for field, count in (("label", 1623), ("alphabet", 50)):
        names = "".join(f"{field} {i}\n" for i in range(count))
        (folder / f"{field}.labels.txt").write_text(names)
    return folder


def write(name: str, data_dir: pathlib.Path, splits: Mapping[str, Iterable[dict]]) -> pathlib.Path:
    """Writes examples of a real builder.

    Args:
      name: of the builder.
      data_dir: of tensorflow-datasets.
      splits: the examples of every split.

    Returns:
      The folder of its files.
    """
    builder = tfds.builder_cls(name)(data_dir=str(data_dir))
    features, folder = builder.info.features, pathlib.Path(builder.data_path)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    folder.mkdir(parents=True)
    written = []
    for split, examples in splits.items():
        path = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        records = [serializer.serialize_example(features.encode_example(e)) for e in examples]
        for record in records:
            writer.write(record)
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        written.append(
            {"name": split, "filepathTemplate": template, "shardLengths": [str(len(records))]}
        )
    info = {
        "name": name,
        "version": str(builder.version),
        "fileFormat": "array_record",
        "moduleName": type(builder).__module__,
        "splits": written,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def picture(value: int, size: tuple[int, int] = (9, 9), form: str = "PNG") -> io.BytesIO:
    """An image of one colour as a file."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size, (value, 0, 0)).save(file, form)
    file.seek(0)
    return file
