"""The section `dataset`: what a run learns from, and how it is split."""

from experiments.config import import_paths
from experiments.config.fields.declaration import (
    EXAMPLES,
    JUDGING,
    MACHINE,
    Field,
    OneOf,
    Part,
    Section,
    When,
    at_least,
)
from triplet_jax.data import benchmark_sets, image_checks, images, label_noise

ARRAYS = ("arrays", "pairs")
BENCHMARKS = tuple(benchmark_sets.BENCHMARKS)
HOLDERS = ("webdataset", "huggingface")
"""Data sets whose files hold images and their columns."""
OTHERS = ("digits", "folder", "table", *HOLDERS, *BENCHMARKS)


def _source(name):
    """The kind of a data set: a name of the library's own, "benchmark", "prepared" or "own"."""
    if name in BENCHMARKS:
        return "benchmark"
    if name in (*ARRAYS, *OTHERS):
        return name
    return "own" if import_paths.is_path(name) else "prepared"


def _when(needs, *sources):
    return (When(needs, ("dataset.name",), lambda name: _source(name) in sources),)


_PREPARED = "a data set of tensorflow-datasets, or your own"
_HAS_PATH = _when(
    "dataset.name='arrays', 'folder', 'huggingface', 'pairs', 'table' or 'webdataset', a"
    f" benchmark, {_PREPARED}",
    *("arrays", "folder", "pairs", "table", *HOLDERS, "benchmark", "prepared", "own"),
)
_HAS_SPLITS = _when(
    f"dataset.name='arrays', 'folder', 'huggingface', 'table' or 'webdataset', {_PREPARED}",
    *("arrays", "folder", "table", *HOLDERS, "prepared", "own"),
)
_HAS_IMAGE_FILES = _when(
    f"dataset.name='folder', 'huggingface', 'table' or 'webdataset', a benchmark, {_PREPARED}",
    *("folder", "table", *HOLDERS, "benchmark", "prepared", "own"),
)
_HAS_FOLDERS = _when("dataset.name='folder', or a data set of your own", "folder", "own")
_HAS_PREPARED = _when(_PREPARED, "prepared", "own")
_HAS_SPLIT_NAMES = _when(
    f"dataset.name='huggingface', {_PREPARED}", "huggingface", "prepared", "own"
)
_IS_LISTED = _when("dataset.name='table', or a data set of your own", "table", "own")
_HAS_COLUMNS = _when(
    "dataset.name='huggingface', 'table' or 'webdataset', or a data set of your own",
    *("table", *HOLDERS, "own"),
)
_HOLDS_IMAGES = _when(
    "dataset.name='huggingface' or 'webdataset', or a data set of your own", *HOLDERS, "own"
)
_HAS_FEATURES = _when("dataset.name='arrays' or 'pairs'", *ARRAYS)

HAS_LABELS = When(
    "dataset.images_as_classes=False",
    ("dataset.images_as_classes",),
    lambda images_as_classes: not images_as_classes,
)

SECTION = Section(
    "dataset",
    "What a run learns from, and how it is split.",
    {
        "name": Field(
            "digits",
            "The data set: digits, folder, table, webdataset, huggingface, arrays, pairs, a"
            " benchmark, the name of an image data set of tensorflow-datasets, or the import path"
            " of your own, such as my_parts:birds.",
            Part(
                "data set",
                {},
                "(fields of config.dataset) -> data.Dataset",
                others=(*OTHERS, *ARRAYS),
            ),
            concerns=EXAMPLES,
        ),
        "path": Field(
            "",
            "The folder of class folders or of a benchmark, the table of images, the .npz file, the"
            " tar shards, or what the package datasets opens.",
            when=_HAS_PATH,
            concerns=MACHINE,  # the fingerprint of the data decides whether they are the same
        ),
        "data_dir": Field(
            "",
            "The folder of tensorflow-datasets; empty for its own default.",
            concerns=MACHINE,
        ),
        "image_size": Field(
            64,
            "The side, in pixels, that images are resized to.",
            at_least(2, at_most=4096),
            when=_HAS_IMAGE_FILES,
        ),
        "channels": Field(
            3,
            "1 for grey images, 3 for colour.",
            OneOf((1, 3), "1 (grey) or 3 (colour)"),
            when=_HAS_IMAGE_FILES,
        ),
        "invert": Field(False, "Exchanges black and white.", when=_HAS_IMAGE_FILES),
        "fit": Field(
            "crop",
            "How a picture that is not square becomes square: crop keeps its middle square, pad"
            " adds a border, stretch changes its shape.",
            OneOf(images.FITS),
            when=_HAS_IMAGE_FILES,
        ),
        "resample": Field(
            "auto",
            "How a picture is scaled; auto is as the weights expect, and bilinear without weights.",
            OneOf(("auto", *images.RESAMPLE)),
            when=_HAS_IMAGE_FILES,
        ),
        "crop_ratio": Field(
            0.0,
            "The share of the square's side that is kept, in its middle; 0 is as the weights"
            " expect, and 1 without weights.",
            at_least(0, at_most=1),
            when=_HAS_IMAGE_FILES,
        ),
        "background": Field(
            255,
            "The grey level of padding and behind transparent pixels; 0 is black.",
            at_least(0, at_most=255),
            when=_HAS_IMAGE_FILES,
        ),
        "max_pixels": Field(
            178_956_970,
            "The most pixels of a picture; a larger one is refused.",
            at_least(1),
            when=_HAS_IMAGE_FILES,
            concerns=MACHINE,  # the fingerprint of the data decides whether they are the same
        ),
        "split_by": Field(
            "image",
            "What training and test do not share: image, class or group (a session, a camera or the"
            " like; not for tensorflow-datasets); or a given split: official is the data set's own,"
            " and vinyals the lists by which few-shot papers split omniglot.",
            when=_HAS_SPLITS,
            concerns=EXAMPLES,
        ),
        "test_fraction": Field(
            0.2,
            "The share of the examples that is tested on.",
            at_least(0, at_most=0.9),
            concerns=EXAMPLES,
        ),
        "validation_fraction": Field(
            0.1,
            "The share of the examples that is validated on.",
            at_least(0, at_most=0.9),
            concerns=EXAMPLES,
        ),
        "split_seed": Field(0, "The seed of the split.", at_least(0), concerns=EXAMPLES),
        "image_feature": Field(
            "",
            "The feature of the images; empty to find it.",
            when=_HAS_PREPARED,
            concerns=EXAMPLES,
        ),
        "label_feature": Field(
            "",
            "The feature of the labels, such as class_id or identity/Identity_No; empty to find"
            " it.",
            when=_HAS_PREPARED,
            concerns=EXAMPLES,
        ),
        "train_split": Field(
            "train",
            "The data set's splits to train on; several are joined by +.",
            when=_HAS_SPLIT_NAMES,
            concerns=EXAMPLES,
        ),
        "validation_split": Field(
            "",
            "The data set's splits to validate on; empty to hold validation out of training.",
            when=_HAS_SPLIT_NAMES,
            concerns=EXAMPLES,
        ),
        "test_split": Field(
            "test", "The data set's splits to test on.", when=_HAS_SPLIT_NAMES, concerns=EXAMPLES
        ),
        "class_level": Field(
            1,
            "How many levels of folders name a class: 2 makes a/b the class of a/b/1.jpg.",
            at_least(1, at_most=16),
            when=_HAS_FOLDERS,
            concerns=EXAMPLES,
        ),
        "root": Field(
            "",
            "The folder that the paths of a table are relative to; empty for the table's own.",
            when=_IS_LISTED,
            concerns=MACHINE,  # the fingerprint of the data decides whether they are the same
        ),
        "path_column": Field(
            "path",
            "The column of a table that holds the image files.",
            when=_IS_LISTED,
            concerns=EXAMPLES,
        ),
        "image_column": Field(
            "",
            "The column of huggingface that holds the images, or in webdataset the ending of their"
            " names after the key; empty to find it.",
            when=_HOLDS_IMAGES,
            concerns=EXAMPLES,
        ),
        "label_column": Field(
            "label",
            "The column that holds the classes; in webdataset, the name in each .json.",
            when=_HAS_COLUMNS,
            concerns=EXAMPLES,
        ),
        "split_column": Field(
            "split",
            "The column that holds train, validation or test, for split_by=official.",
            when=_HAS_COLUMNS,
            concerns=EXAMPLES,
        ),
        "group_column": Field(
            "group",
            "The column that holds sessions or cameras, for split_by=group.",
            when=_HAS_COLUMNS,
            concerns=EXAMPLES,
        ),
        "category_column": Field(
            "",
            "The column that holds the group of each class, for batch.same_group; empty for none.",
            when=_HAS_COLUMNS,
            concerns=EXAMPLES,
        ),
        "box_columns": Field(
            (),
            "The columns of a table that hold the left, top, right and bottom edge of the part of"
            " each picture that is read, in pixels; empty for whole pictures.",
            when=_IS_LISTED,
            concerns=EXAMPLES,
        ),
        "ignore_columns": Field(
            (),
            "The columns in which a query agrees with the references of its class that"
            " it leaves out, such as ('camera', 'day'); 'a=b' compares column a of the query with"
            " column b of the reference.",
            when=_HAS_COLUMNS,
            concerns=JUDGING,
        ),
        "index_dir": Field(
            "",
            "The folder that keeps an index for later runs: where each image is in the files, and"
            " that it can be read; empty for triplet_jax/indexes in the user's cache folder.",
            when=_HOLDS_IMAGES,
            concerns=MACHINE,
        ),
        "turns_as_classes": Field(
            False,
            "Makes each quarter turn of a training class a class of its own.",
            concerns=EXAMPLES,
        ),
        "mirrored_as_classes": Field(
            False,
            "Makes each training class, mirrored left and right, a class of its own too.",
            concerns=EXAMPLES,
        ),
        "images_as_classes": Field(
            False,
            "Makes each training image a class of its own; labels are not used.",
            concerns=EXAMPLES,
        ),
        "bad_images": Field(
            "refuse",
            "What happens to a file that cannot be read as an image.",
            OneOf(image_checks.BAD_IMAGES),
            when=_HAS_IMAGE_FILES,
            concerns=EXAMPLES,
        ),
        "standardise": Field(
            True,
            "Brings features to mean 0 and standard deviation 1 over the training split; images"
            " stay as they are.",
            when=_HAS_FEATURES,
        ),
        "placement": Field(
            "device",
            "Where the data are while training: all on the device, or in a stream from disk.",
            OneOf(("device", "stream")),
            # Not MACHINE: another compiled program may round otherwise.
        ),
        "workers": Field(
            2,
            "The processes that load a stream; 0 for threads.",
            at_least(0, at_most=1024),
            concerns=MACHINE,
        ),
        "label_noise": Field(
            0.0,
            "The share of each training class that gets a wrong label.",
            at_least(0, at_most=0.99),
            when=(HAS_LABELS,),
            concerns=EXAMPLES,
        ),
        "noise_kind": Field(
            "symmetric",
            "How wrong labels are drawn: from all other classes, from one class that is fixed for"
            " each class, or from the classes of the same group.",
            OneOf(label_noise.KINDS),
            concerns=EXAMPLES,
        ),
        "noise_seed": Field(0, "The seed of the wrong labels.", at_least(0), concerns=EXAMPLES),
        "drop_noisy": Field(
            False, "Leaves the wrongly labelled examples out, which shows what knowing them gives."
        ),
    },
)
