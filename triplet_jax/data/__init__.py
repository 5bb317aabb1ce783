"""Data sets: where they come from, how they are split, and how batches are drawn from them."""

from triplet_jax import errors

if lacking := errors.lacking("triplet_jax.data", "data", "PIL"):
    raise lacking

from triplet_jax.data.array_files import arrays as arrays
from triplet_jax.data.array_files import pairs as pairs
from triplet_jax.data.benchmark_sets import BENCHMARKS as BENCHMARKS
from triplet_jax.data.benchmark_sets import benchmark as benchmark
from triplet_jax.data.dataset import SPLITS as SPLITS
from triplet_jax.data.dataset import Dataset as Dataset
from triplet_jax.data.dataset import fingerprint as fingerprint
from triplet_jax.data.dataset import fingerprints as fingerprints
from triplet_jax.data.dataset import images_as_classes as images_as_classes
from triplet_jax.data.dataset import mirrored_as_classes as mirrored_as_classes
from triplet_jax.data.dataset import quarter_turns_as_classes as quarter_turns_as_classes
from triplet_jax.data.face_pairs import FacePairs as FacePairs
from triplet_jax.data.face_pairs import PairCounts as PairCounts
from triplet_jax.data.face_pairs import lfw_pairs as lfw_pairs
from triplet_jax.data.huggingface import from_huggingface as from_huggingface
from triplet_jax.data.image_folders import folder as folder
from triplet_jax.data.image_rows import Columns as Columns
from triplet_jax.data.image_tables import table as table
from triplet_jax.data.sklearn_digits import digits as digits
from triplet_jax.data.splits import HeldOut as HeldOut
from triplet_jax.data.splits import hold_out as hold_out
from triplet_jax.data.tfds import from_tfds as from_tfds
from triplet_jax.data.webdataset import from_webdataset as from_webdataset
from triplet_jax.runs.files import read_arrays as read_arrays
