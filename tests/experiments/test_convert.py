"""A file of torch, converted once, read as the same arrays."""

import collections
import hashlib
import re
import sys
import types

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from experiments import convert
from tests.support import cases, mains, programs
from triplet_jax import errors

ARRAYS = {"conv.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "count": np.int64(3)}


def run(tmp_path, *flags):
    source, output = tmp_path / "w.pth", tmp_path / "w.safetensors"
    done = programs.run("convert", f"--input={source}", f"--output={output}", *flags)
    return done, output


def test_without_torch_the_message_says_what_to_install(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"PK")
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['convert', *sys.argv[1:]];"
        "runpy.run_module('experiments.convert', run_name='__main__', alter_sys=True)"
    )
    given = [f"--input={tmp_path / 'w.pth'}", f"--output={tmp_path / 'w.safetensors'}"]
    done = programs.run_code(code, *given)
    programs.refused(done, "the package torch is not installed: pip install torch")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    done, output = run(tmp_path)
    programs.refused(done, f"--input={tmp_path / 'w.pth'} is no file")
    done = programs.run("convert", f"--input={tmp_path}", f"--output={tmp_path / 'w.npz'}")
    programs.refused(done, "must be a file named *.safetensors")
    assert not output.exists()


class Tensor(np.ndarray):
    """Has what the program asks of a tensor of torch."""

    contiguous = clone = np.ndarray.copy


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Converts a file in which torch, for which a stand-in stands, finds this; what was written."""

    def converted(found, *flags):
        def load(source, map_location, weights_only):
            assert weights_only and map_location == "cpu"
            if isinstance(found, Exception):
                raise found
            return found

        torch = types.SimpleNamespace(load=load, Tensor=Tensor)
        writer = types.SimpleNamespace(save=safetensors.numpy.save)
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setitem(sys.modules, "safetensors.torch", writer)
        monkeypatch.setattr(safetensors, "torch", writer, raising=False)
        source, output = tmp_path / "w.pth", tmp_path / "w.safetensors"
        source.write_bytes(b"PK")
        mains.call(convert.main, f"--input={source}", f"--output={output}", *flags)
        return safetensors.safe_open(output, "np")

    return converted


WEIGHTS = {"conv.weight": np.arange(6.0, dtype="f4").reshape(2, 3).T.view(Tensor)}
PARALLEL = {f"module.{name}": x for name, x in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("found", "flags", "left_out"),
    [
        (WEIGHTS | {"epoch": 3}, [], "left out, as it is no array: epoch\n"),
        ({"state_dict": PARALLEL, "epoch": 3}, [], ""),
        ({"model": WEIGHTS, "teacher": {}}, [], ""),
        ({"model": {}, "teacher": PARALLEL}, ["--key=teacher"], ""),
    ],
)
def test_arrays_are_found_under_the_names_that_frameworks_give_them(
    found, flags, left_out, opened, capsys
):
    with opened(found, *flags) as file:
        assert list(file.keys()) == ["conv.weight"]
        np.testing.assert_array_equal(file.get_tensor("conv.weight"), WEIGHTS["conv.weight"])
        digest = hashlib.sha256(b"PK").hexdigest()
        assert file.metadata() == {"format": "pt", "source": "w.pth", "source_sha256": digest}
    printed = capsys.readouterr().out
    assert printed.startswith(f"{left_out}written to ") and ": 1 arrays, " in printed


@pytest.mark.parametrize(
    ("found", "flags", "words"),
    [
        ({"b": 1, "a": WEIGHTS}, ["--key=x"], "--key=x is not in .* which has ['a', 'b']. Give"),
        ([WEIGHTS], ["--key=x"], "--key=x is not in .* which has []. Give one"),
        ({"epoch": 3}, [], "w.pth holds no arrays by name, but ['epoch']. Give a file with"),
        ([WEIGHTS], [], "w.pth holds no arrays by name, but list. Give a file with"),
        (ValueError("bad magic\nmore"), [], "as weights alone (bad magic). It is damaged,"),
        (EOFError(), [], "w.pth cannot be opened by torch as weights alone (EOFError). It is"),
    ],
)
def test_what_holds_no_weights_is_refused_and_nothing_written(
    found, flags, words, opened, tmp_path
):
    with pytest.raises(errors.InputError, match=re.escape(words).replace(r"\.\*", ".*")):
        opened(found, *flags)
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.oracle
@pytest.mark.parametrize(
    "owner", cases.mostly_slow(["", "state_dict", "model", "teacher"], ["", "teacher"])
)
def test_arrays_keep_their_names_types_and_values(owner, tmp_path):
    torch = pytest.importorskip("torch", reason="make oracle installs torch")
    half = torch.tensor([1.5, 2.0], dtype=torch.bfloat16)
    weights = {name: torch.tensor(x) for name, x in ARRAYS.items()} | {"half": half}
    weights["tied"] = weights["conv.weight"].T
    prefix = "module." if owner else ""
    weights = collections.OrderedDict((prefix + name, x) for name, x in weights.items())
    source = tmp_path / "w.pth"
    torch.save({owner: weights, "epoch": 3} if owner else weights, source)
    done, output = run(tmp_path, *["--key=teacher"] * (owner == "teacher"))
    assert done.returncode == 0, done.stderr
    assert "4 arrays" in done.stdout
    with safetensors.safe_open(output, "np") as file:
        assert sorted(file.keys()) == ["conv.weight", "count", "half", "tied"]
        np.testing.assert_array_equal(file.get_tensor("conv.weight"), ARRAYS["conv.weight"])
        np.testing.assert_array_equal(file.get_tensor("tied"), ARRAYS["conv.weight"].T)
        assert file.get_slice("half").get_dtype() == "BF16"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        assert file.metadata()["source_sha256"] == digest


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.oracle
def test_a_file_that_holds_more_than_arrays_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="make oracle installs torch")
    torch.save({"a": Evil()}, tmp_path / "w.pth")
    done, output = run(tmp_path)
    programs.refused(done, "cannot be opened by torch as weights alone")
    assert "ran" not in done.stdout and not output.exists()
    torch.save({"state": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    programs.refused(run(tmp_path)[0], "holds no arrays by name, but ['state']")
    programs.refused(run(tmp_path, "--key=x")[0], "--key=x is not in")
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04 cut off")
    programs.refused(run(tmp_path)[0], "cannot be opened by torch as weights alone")
