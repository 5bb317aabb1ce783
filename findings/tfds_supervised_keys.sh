#!/usr/bin/env bash
# The supervised_keys of a builder of tensorflow-datasets are not always (image, label).
#
# One would expect: as tfds documents, "typically this is a (input_key, target_key) tuple", so that a reader
# may take the first for the image and the second for the class.
# What happens: the builder lfw declares ("label", "image"), so as_supervised=True gives the name of the
# person first and the image second. Its label is a text. places365_small declares three keys, and
# pet_finder has keys of which none is the image. So a reader has to look at the types of the features.
# Seen with tensorflow-datasets 4.9.10 (datasets/lfw/lfw_dataset_builder.py), Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    tensorflow-datasets==4.9.10 array_record==0.8.6 importlib_resources==7.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import tensorflow_datasets as tfds

order = {}
for name in ("cars196", "lfw", "places365_small", "pet_finder"):
    info = tfds.builder_cls(name)(data_dir="nothing_here").info
    features, keys = info.features, info.supervised_keys
    order[name] = [type(features[k]).__name__ if k in features else None for k in keys]
    print(f"{name:16} {info.supervised_keys} are {order[name]}")
assert order["cars196"] == ["Image", "ClassLabel"], "CHANGED"
assert order["lfw"] == ["Text", "Image"], "CHANGED: the keys of lfw are in another order"
assert order["places365_small"] == ["Image", "ClassLabel", "Text"], "CHANGED"
assert "Image" not in order["pet_finder"], "CHANGED"
PY
