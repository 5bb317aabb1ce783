"""A small Omniglot as tensorflow-datasets prepares it, made without TensorFlow."""

import io
import json
import pathlib

import numpy as np
import PIL.Image
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

VERSION = "3.0.0"


def omniglot(data_dir: pathlib.Path, classes: int = 6, images: int = 3) -> pathlib.Path:
    """Writes it: classes with a few images each, of which train has the first half.

    Returns:
      The folder of its files.
    """
    folder = data_dir / "omniglot" / VERSION
    folder.mkdir(parents=True)
    splits = [("train", range(classes // 2)), ("test", range(classes // 2, classes))]
    for split, labels in splits:
        path = folder / f"omniglot-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for label in np.repeat(labels, images):
            writer.write(_record(int(label)))
        writer.close()
    for field, count in (("label", 1623), ("alphabet", 50)):
        names = "".join(f"{field} {i}\n" for i in range(count))
        (folder / f"{field}.labels.txt").write_text(names)
    info = {
        "name": "omniglot",
        "version": VERSION,
        "fileFormat": "array_record",
        "moduleName": "tensorflow_datasets.image_classification.omniglot",
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(images * len(labels))],
            }
            for split, labels in splits
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def _record(label):
    image = io.BytesIO()
    PIL.Image.new("RGB", (9, 9), (40 * label, 0, 0)).save(image, "PNG")
    example = tf_example_pb2.Example()
    fields = example.features.feature
    fields["image"].bytes_list.value.append(image.getvalue())
    numbers = {"label": label, "alphabet": label // 2, "alphabet_char_id": label}
    for name, number in numbers.items():
        fields[name].int64_list.value.append(number)
    return example.SerializeToString()
