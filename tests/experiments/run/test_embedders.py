"""The mark by which a gallery knows the encoder that made it."""

import dataclasses
import types

import numpy as np
import pytest

from experiments.config import completion
from experiments.run import config_json, embedders
from tests.support import bare_runs
from tests.support.configs import config
from triplet_jax import errors
from triplet_jax.data import images

FORM = images.ImageForm(size=8, channels=3)


def mark(form, weight=1.0):
    return embedders.Embedder(None, {"weight": np.full(3, weight, np.float32)}, form).mark


def test_the_mark_changes_with_the_weights_and_with_how_pictures_are_read():
    others = [
        mark(FORM, weight=2.0),
        *(
            mark(dataclasses.replace(FORM, **field))
            for field in ({"resample": "bicubic"}, {"crop_ratio": 0.875}, {"fit": "pad"})
        ),
    ]
    assert len({mark(FORM), *others}) == 5


def test_the_mark_is_that_of_versions_before_these_fields():
    """Otherwise all galleries would be embedded anew."""
    assert mark(FORM) == "fab39a4078317276"


def test_a_run_on_features_embeds_no_images(tmp_path):
    workdir = bare_runs.write(tmp_path / "run")
    with pytest.raises(errors.InputError, match=r"of shape \(4,\), not on square images, so that"):
        embedders.load_embedder(workdir)


def test_the_most_pixels_of_a_picture_may_be_given(tmp_path, monkeypatch):
    of_photographs = config(dataset__name="folder", dataset__path="photographs")
    config_json.remember(tmp_path, completion.completed(of_photographs))
    judged = types.SimpleNamespace(variables={"weight": np.ones(3)})
    run = types.SimpleNamespace(judged_encoder=None, judged=lambda: (1, judged))
    monkeypatch.setattr(embedders.restoring, "load", lambda *given: run)
    usual, smaller = embedders.load_embedder(tmp_path), embedders.load_embedder(tmp_path, 90)
    assert usual.form.max_pixels == of_photographs.dataset.max_pixels
    assert smaller.form == dataclasses.replace(usual.form, max_pixels=90)
