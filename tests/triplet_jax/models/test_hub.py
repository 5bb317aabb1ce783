"""Weights of the Hugging Face Hub, from a cache that this test writes; no network is used."""

import hashlib
import json
import sys

import numpy as np
import pytest
import safetensors.numpy

from triplet_jax import errors
from triplet_jax.models import hub, weight_files

huggingface_hub = pytest.importorskip("huggingface_hub")
failures = pytest.importorskip("huggingface_hub.errors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that puts files of a repository into an empty cache; nothing goes online."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, files, revision="main"):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(COMMIT)
        for file, content in files.items():
            blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(content)
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / file).symlink_to(blob)
        return folder

    return put


def lacks(folder, *names):
    """Notes in the cache that the repository has no such files."""
    for name in names:
        missing = folder / ".no_exist" / COMMIT / name
        missing.parent.mkdir(parents=True, exist_ok=True)
        missing.touch()


def saved(**tensors):
    return safetensors.numpy.save({name: np.float32([x]) for name, x in tensors.items()})


def test_what_is_in_the_cache_is_read_without_a_network(cache):
    content, page = saved(a=1), b"---\ntags:\n- x\nlicense: apache-2.0\n---\n# Model\n"
    cache("org/name", {"model.safetensors": content, "README.md": page})
    found = weight_files.read("hf://org/name")
    np.testing.assert_array_equal(found.tensors["a"], [1])
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (found.licence, found.source) == ("apache-2.0", "hf://org/name")


def test_an_address_may_name_a_revision_and_a_file(cache):
    cache("org/name", {"model.safetensors": saved(a=1), "other/x.safetensors": saved(b=2)}, "v2")
    assert weight_files.read("hf://org/name@v2").tensors.keys() == {"a"}
    cache("org/next", {"other/x.safetensors": saved(b=2)})
    found = weight_files.read("hf://org/next/other/x.safetensors")
    assert found.tensors.keys() == {"b"} and found.licence is None


def test_weights_in_several_files_are_read_by_their_index(cache):
    parts = {"1.safetensors": saved(a=1), "2.safetensors": saved(b=2)}
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    folder = cache(
        "org/large", parts | {"model.safetensors.index.json": json.dumps(index).encode()}
    )
    lacks(folder, "model.safetensors")
    found = weight_files.read("hf://org/large")
    assert found.tensors.keys() == {"a", "b"}
    hashes = [hashlib.sha256(content).hexdigest() for content in parts.values()]
    assert found.sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()


@pytest.mark.parametrize("index", [b"{", b"[]", b"{}", b'{"weight_map": [1]}'])
def test_a_damaged_index_is_named(cache, index):
    folder = cache("org/large", {"model.safetensors.index.json": index})
    lacks(folder, "model.safetensors")
    with pytest.raises(errors.InputError, match="index.json is damaged. Remove it, and it is fetc"):
        weight_files.read("hf://org/large")


def test_a_repository_without_weights_is_refused(cache):
    lacks(
        cache("org/name", {"README.md": b"A page."}),
        "model.safetensors",
        "model.safetensors.index.json",
    )
    with pytest.raises(errors.InputError, match="the repository has no model.safetensors"):
        weight_files.read("hf://org/name")


def test_offline_the_message_names_what_is_missing(cache):
    with pytest.raises(errors.InputError, match="and HF_HUB_OFFLINE is set: model.safetensors of"):
        weight_files.read("hf://org/name")


@pytest.mark.parametrize("error", [ConnectionError, failures.LocalEntryNotFoundError])
def test_without_a_network_the_weights_are_lost_for_now(cache, monkeypatch, error):
    from huggingface_hub import constants

    def unreachable(*_, **__):
        raise error("no route to the host")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(errors.LostError, match=r"cannot be reached \(no route to the host\)"):
        weight_files.read("hf://org/name")


def test_a_file_that_the_hub_lacks_is_named(cache, monkeypatch):
    asked = []

    def lacking(_, name, **__):
        asked.append(name)
        raise failures.EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lacking)
    with pytest.raises(errors.InputError, match="the repository has no model.safetensors. Give"):
        weight_files.read("hf://org/name")
    assert asked == ["model.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("GatedRepoError", "accept their terms"),
        ("RepositoryNotFoundError", "are not there, or not for everybody"),
        ("RevisionNotFoundError", "have no revision 'v1'"),
    ],
)
def test_what_the_hub_refuses_is_refused(cache, monkeypatch, failure, words):
    def refusing(*_, **__):
        kind = getattr(failures, failure)
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refusing)
    with pytest.raises(errors.InputError, match=words):
        weight_files.read("hf://org/name@v1")


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://a/b/model.bin", "hf://a b/c"])
def test_other_addresses_are_refused(address):
    with pytest.raises(errors.InputError, match="is no address of weights"):
        weight_files.read(address)


def test_without_huggingface_hub_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.InputError, match=r"pip install\s+'triplet_jax\[hub\]'"):
        weight_files.read("hf://org/name")


@pytest.mark.parametrize(
    ("page", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: 'cc-by-4.0'\nx: 1\n---\n", "cc-by-4.0"),
        ("---\nlicense:\n- other\n---\n", "other"),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
    ],
)
def test_the_licence_is_in_the_head_of_the_page(page, licence):
    assert hub.licence_of(page) == licence
