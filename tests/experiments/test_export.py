"""What `experiments.export` refuses, and what it says of each kind of file."""

import pathlib

import numpy as np
import pytest

from experiments import export
from experiments.run import exporting
from tests.support import mains
from triplet_jax import errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--output=a.safetensors", "Give --format=safetensors, or a file named .*.jaxexport"),
        ("--output=a.jaxexport --format=onnx", "is of --format=jax, not of --format=onnx"),
        ("--output=a.jaxexport --names=timm", "--names=timm has no effect with --format=jax"),
        ("--format=torch", r"Give that; in torch, safetensors.torch.load_file\(FILE\)"),
        ("--output=none/a.jaxexport", "named .*.jaxexport, in a folder that exists"),
        ("", "--output is missing: the .jaxexport file to write"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, words):
    with pytest.raises(errors.InputError, match=words):
        mains.call(export.main, "--workdir=x", *flags.split())


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("jax", "", "for batches of uint8 inputs of 8x8x1"),
        ("onnx", "", "for batches of float32 inputs of 8x8x1"),
        ("safetensors", "timm", "the backbone by the names of timm, the head under triplet_jax.h"),
        ("safetensors", "", "by names of ours, since nobody publishes this backbone"),
    ],
)
def test_a_file_is_described_as_it_is(kind, names, words, tmp_path, monkeypatch, capsys):
    output = tmp_path / f"mine{exporting.SUFFIXES[kind]}"

    def export_encoder(workdir, path, moved_to, **given):
        assert given == {"kind": kind, "names": names} and moved_to is None
        path.write_bytes(bytes(2**20))
        return exporting.Exported(
            step=7, shape=(8, 8, 1), dtype=np.uint8, names=names, card=pathlib.Path("card.md")
        )

    monkeypatch.setattr(exporting, "export_encoder", export_encoder)
    flags = [f"--format={kind}", f"--output={output}", *([f"--names={names}"] if names else [])]
    mains.call(export.main, f"--workdir={tmp_path}", *flags)
    said = capsys.readouterr().out
    assert f"the encoder of step 7 written to {output}: 1.0 MiB, {words}" in said
    assert "how it is used: card.md" in said
    assert ("Keep the run's folder" in said) == (kind == "jax")
