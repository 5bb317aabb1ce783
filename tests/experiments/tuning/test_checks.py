"""Which studies make no sense, told before anything is written."""

import sys
import types

import numpy as np
import pytest

from configs.tune import base
from experiments.config import datasets
from experiments.config.fields import dataset
from experiments.tuning import checks, studies
from tests.support import image_folders, small_studies
from tests.support.configs import config
from triplet_jax import errors


def space(**parts):
    return {"space": tuple((name.replace("__", "."), part) for name, part in parts.items())}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            space(loss__margin=base.between(-0.5, 1.0)),
            "space, at loss.margin=-0.5: loss.margin=-0.5 must be .* at least 0",
        ),
        (space(model__width=base.between(1, 2**40)), "at model.width=1099511627776: model.width"),
        (space(loss__margn=base.between(0.1, 1.0)), "Did you mean 'loss.margin'"),
        ({"space": ("loss.margin", base.between(0.1, 1.0))}, "space: 'loss.margin' is no pair"),
        (space(model__width=base.between(1.5, 2.5)), "model.width"),
        (space(mining__miner=base.one_of("semi_hrad")), "at mining.miner='semi_hrad'"),
        (space(mining__knobs__hardness=base.between(0.1, 1.0)), "at mining.knobs.hardness=0.1"),
        (space(seed=base.between(0, 5)), "'seed' may not be searched: it is set to the seed"),
        (space(evaluate__every=base.one_of(5, 10)), "'evaluate.every' may not be .* judged alike"),
        (space(dataset__test_fraction=base.between(0.1, 0.2)), "would not be judged alike"),
        ({"metric": "test/map_at_r"}, "metric='test/map_at_r' is not known"),
        ({"seeds": ()}, "seeds="),
        ({"seeds": (0, 1), "also_seeds": ()}, r"runs of seeds=\(0, 1\) are equal"),
        ({"trials": 0}, "trials=0"),
        ({"pruner": "median", "engine": "vectorised"}, "does not go with engine='vectorised'"),
        ({"pruner": "median", "seeds": (0, 1)}, "does not go with seeds="),
        (
            {"pruner": "hyperband"} | space(train__steps=base.between(50, 100)),
            "compares trials of as many steps",
        ),
        ({"engine": "vectorised", "run": {"train.patience": 2}}, "does not obey train.patience=2"),
    ],
)
def test_studies_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        checks.check(small_studies.made(**fields))


# Fields of data that leave the examples, their labels and splits as they are.
READ_OTHERWISE = {
    "image_size": 16,
    "channels": 1,
    "invert": True,
    "fit": "pad",
    "resample": "lanczos",
    "crop_ratio": 0.5,
    "background": 0,
    "standardise": False,
    "placement": "stream",
    "drop_noisy": True,
}


def may_be_searched(name):
    fixed = base.one_of(dataset.SECTION.fields[name].default)
    try:
        checks.check(small_studies.made(**space(**{f"dataset__{name}": fixed})))
    except errors.InputError as error:
        return "may not be searched: trials would not be judged alike" not in str(error)
    return True


def test_a_field_of_data_is_refused_unless_it_leaves_the_examples_as_they_are(tmp_path):
    assert [name for name in dataset.SECTION.fields if may_be_searched(name)] == list(
        READ_OTHERWISE
    )
    for number in range(24):
        image_folders.save_image(tmp_path / f"{number % 4}" / f"{number}.png", 10 * number)
    given = {"dataset__name": "folder", "dataset__path": str(tmp_path), "dataset__image_size": 8}
    usual = datasets.dataset(config(**given), decoded=False)
    for name, value in READ_OTHERWISE.items():
        other = config(**given | {f"dataset__{name}": value})
        found = datasets.dataset(other, decoded=False)
        for part in ("names", "labels", "split"):
            np.testing.assert_array_equal(getattr(found, part), getattr(usual, part), name)


def test_a_study_without_a_validation_split_is_refused():
    study = small_studies.made(run={"dataset.validation_fraction": 0.0})
    study.space = (("loss.margin", base.one_of(0.3)),)
    with pytest.raises(
        errors.InputError, match="raise dataset.validation_fraction. The test split"
    ):
        checks.check_data(study, checks.spaces.parse(study.space))


def test_a_model_is_built_with_each_option_and_not_with_each_number(monkeypatch):
    built = []

    def setup(config, *_):
        built.append((config.mining.miner, config.model.name, config.loss.margin))
        return types.SimpleNamespace(check=lambda: None, validation=None)

    monkeypatch.setattr(checks, "Setup", setup)
    monkeypatch.setattr(checks.vectorised, "dataset", lambda _: None)
    monkeypatch.setattr(checks.datasets, "can_score", lambda *_: True)
    parts = {"loss__margin": base.between(0.1, 0.5), "model__name": base.one_of("mlp", "conv4")}
    miners = base.one_of("semi_hard", "batch_hard", "batch_all")
    study = small_studies.made(**space(mining__miner=miners, **parts))
    checks.check_data(study, checks.spaces.parse(study.space))
    of_first = [("semi_hard", "mlp", 0.1), ("batch_hard", "mlp", 0.1), ("batch_all", "mlp", 0.1)]
    assert sorted(built) == sorted([*of_first, ("semi_hard", "conv4", 0.1)])


def test_a_folder_keeps_its_study_whose_trials_may_grow(tmp_path):
    checks.remember(small_studies.made(), tmp_path)
    checks.remember(small_studies.made(trials=9, engine="vectorised"), tmp_path)
    for fields, name in (
        ({"sampler": "random"}, "sampler"),
        (space(loss__margin=base.between(0.1, 1.0)), "space"),
        ({"run": {"loss.margin": 0.7}}, "run"),
    ):
        with pytest.raises(errors.InputError, match=f"holds another study: {name} differ"):
            checks.remember(small_studies.made(**fields), tmp_path)


def test_without_optuna_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(errors.InputError, match=r"pip install\s+'triplet_jax\[tune\]'"):
        studies.optuna()
