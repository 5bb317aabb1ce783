"""A trained run whose config.json somebody edited is used, or refused: nothing ends in a traceback.

FUZZ=1000 edits so many, of a run whose checkpoints carry their config, and of one whose do not.
"""

import json
import os
import shutil

import hypothesis
import hypothesis.strategies as st
import ml_collections
import numpy as np
import pytest

from configs import base, digits
from experiments.run import config_json, evaluating, exporting, training
from tests.experiments.config import test_fuzzed_configs as random_configs
from tests.experiments.run import test_damaged_files as damaged
from tests.support import limits
from triplet_jax import errors

# Reading a damaged file leaves callbacks of tensorstore behind that complain on their own.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

EDITED = int(os.environ.get("FUZZ", 4))
TINY = {
    "model.name": "mlp",
    "model.width": 8,
    "model.dim": 4,
    "train.steps": 2,
    "evaluate.every": 1,
    "evaluate.episodes": 4,
    "batch.per_class": 4,
    "dataset.name": "arrays",
    "augment.shift": 0.0,
    "augment.rotate": 0.0,
    "augment.scale": 0.0,
}


@pytest.fixture(scope="module", params=["with_config", "without_config"])
def workdir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 8)
    np.savez(folder / "data.npz", x=random.normal(size=(80, 5)).astype(np.float32), y=y)
    fields = TINY | {"dataset.path": str(folder / "data.npz")}
    config = base.with_differences(digits.get_config("semi_hard"), fields)
    training.train(ml_collections.FrozenConfigDict(config), folder)
    if request.param == "without_config":
        for of_step in (folder / "checkpoints").glob("*/config"):
            shutil.rmtree(of_step)
    return folder


@st.composite
def edits(draw):
    """What is done to the content of a config: some fields get other values, or any JSON."""
    names = draw(st.lists(st.sampled_from(random_configs.FIELDS), max_size=2, unique=True))
    values = {name: draw(random_configs.values(name)) for name in names}
    anything = draw(st.booleans()) or not names
    whole = draw(st.data()) if anything else None

    def edit(content):
        for name, value in values.items():
            *owners, leaf = name.split(".")
            section = content
            for owner in owners:
                section = section[owner]
            section[leaf] = value
        return damaged.another(whole.draw, content) if anything else content

    return edit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers that overflow
@hypothesis.settings(
    max_examples=EDITED,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
@hypothesis.given(edit=edits())
def test_an_edited_run_is_used_or_refused(edit, workdir):
    path = workdir / "config.json"
    whole = path.read_text()
    path.write_text(json.dumps(edit(json.loads(whole))))
    try:
        for use in (
            evaluating.evaluate_folder,
            lambda w: exporting.export_encoder(w, w / "one.jaxexport"),
        ):
            try:
                with limits.fails_after(120):
                    use(workdir)
            except errors.InputError as error:
                assert len(str(error)) > 20
    finally:
        path.write_text(whole)
    assert not (workdir / "damaged_checkpoints").exists()
    config_json.read(workdir)
