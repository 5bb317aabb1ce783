"""Files of weights: which types are read, and which files are refused."""

import hashlib
import io
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from triplet_jax import errors
from triplet_jax.models import weight_files

ARRAY = np.array([[1.5, -2.0, 3.0], [0.25, 0.0, 8.0]], np.float32)


def written(path, tensors=None, **metadata):
    tensors = {"a": ARRAY} if tensors is None else tensors
    path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata or None))
    return path


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floats_of_16_and_32_bits_are_read_as_float32(kind, tmp_path):
    path = written(tmp_path / "w.safetensors", {"a": ARRAY.astype(kind)})
    found = weight_files.read(str(path))
    assert found.tensors["a"].dtype == np.float32
    np.testing.assert_array_equal(found.tensors["a"], ARRAY)
    assert found.source == str(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.licence is None


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.bool_])
def test_other_types_stay_as_they_are(kind, tmp_path):
    path = written(tmp_path / "w.safetensors", {"count": np.ones(2, kind)})
    assert weight_files.read(str(path)).tensors["count"].dtype == kind


def test_types_that_numpy_lacks_are_refused_by_name(tmp_path):
    path = written(tmp_path / "w.safetensors", {"small": np.ones(2, ml_dtypes.float8_e4m3fn)})
    with pytest.raises(errors.InputError, match="has small of the type F8_E4M3"):
        weight_files.read(str(path))


@pytest.mark.parametrize("name", ["license", "licence"])
def test_the_licence_is_what_the_file_states(name, tmp_path):
    path = written(tmp_path / "w.safetensors", **{name: "apache-2.0"})
    assert weight_files.read(str(path)).licence == "apache-2.0"


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [zipped(), *(pickle.dumps({}, protocol) for protocol in (2, 3, 4, 5))]
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_pickle_is_refused_unopened(content, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(weight_files.PickleError, match="holds a pickle"):
        weight_files.read(str(path))


def test_damaged_files_are_refused(tmp_path):
    whole = written(tmp_path / "w.safetensors").read_bytes()
    for content in (whole[:-3], whole[:20], whole[:4], b"", b"text", b"\xff" * 100):
        (tmp_path / "w.safetensors").write_bytes(content)
        for read in (weight_files.read, weight_files.metadata):
            with pytest.raises(errors.InputError, match="is damaged, cut off or of another kind"):
                read(str(tmp_path / "w.safetensors"))


def test_a_path_without_a_file_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="is no file"):
        weight_files.read(str(tmp_path / "none.safetensors"))
    with pytest.raises(errors.InputError, match="is a folder"):
        weight_files.read(str(tmp_path))


def test_without_safetensors_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[weights\]'"):
        weight_files.read(str(tmp_path / "w.safetensors"))
