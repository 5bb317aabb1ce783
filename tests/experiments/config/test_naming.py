"""The library's arguments in the words of a user of the programs."""

import ast
import pathlib
import re

import numpy as np
import pytest

from experiments.config import check, datasets, fields, naming
from experiments.run import data_json
from tests.support.configs import config
from triplet_jax import errors


def test_arguments_get_the_names_of_fields_and_other_words_stay():
    said = "path='a/path=b': set kind='x', batch.path=1 or --path=2 (path, kind)"
    found = naming.in_fields(said, "dataset", kind="dataset.noise_kind")
    assert found == (
        "dataset.path='a/path=b': set dataset.noise_kind='x', batch.path=1 or --path=2 (path, kind)"
    )


def test_a_command_in_a_message_stays_as_it_is_typed(tmp_path):
    made = config(dataset__name="omniglot", dataset__data_dir=str(tmp_path))
    with pytest.raises(errors.InputError) as refused:
        datasets.open_dataset(made.dataset)
    said = str(refused.value)
    assert said.startswith("dataset.name='omniglot' is not prepared")
    assert f"file_format='array_record', data_dir='{tmp_path}')" in said
    assert "dataset.data_dir=FOLDER" in said


def test_an_error_keeps_its_type_and_its_place():
    class OwnError(errors.InputError):
        pass

    with (
        pytest.raises(OwnError, match=r"^--max_pixels=3 is small\. Or not\.$") as raised,
        naming.with_advice("Or not."),
        naming.as_flags("max_pixels"),
    ):
        raise OwnError("max_pixels=3 is small.")
    assert raised.traceback[-1].name == "test_an_error_keeps_its_type_and_its_place"


def test_other_errors_pass_as_they_are():
    with pytest.raises(ValueError, match="^path=1$"), naming.as_fields("dataset"):
        raise ValueError("path=1")


def test_a_name_for_an_argument_is_that_of_a_field():
    """Of every call under experiments."""
    folder = pathlib.Path(naming.__file__).parents[1]
    source = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    calls = re.findall(r"as_fields\(([^)]*)\)", source)
    assert len(calls) > 4
    named = re.findall(r"=\"([\w.]+)\"", "".join(calls))
    assert set(named) <= set(fields.FIELDS)


def texts_of_library():
    """Every text in the code of the library, messages and docstrings, with its place."""
    for path in pathlib.Path(errors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.name}:{node.lineno}", node.value


def test_the_library_names_no_field_no_flag_and_no_program():
    sections = {section.name for section in fields.SECTIONS} - {""}
    names = "|".join(map(re.escape, fields.FIELDS.keys() - {"seed"}))
    # --xla_... and the like are flags of others.
    of_programs = rf"(?<![\w.])(?:{names})(?!\w)|\b(?:{'|'.join(sections)})\.\*"
    of_programs += r"|--(?:config|workdir|data|process)|\bexperiments\.|\bconfigs\b"
    found = [
        f"{place}: {match[0]}"
        for place, text in texts_of_library()
        for match in re.finditer(of_programs, text)
    ]
    assert not found


def arrays(folder, **differences):
    x = np.zeros((12, 4), np.float32)
    given = {"x": x, "y": np.repeat(np.arange(4), 3)} | differences
    np.savez(folder / "data.npz", **{name: a for name, a in given.items() if a is not None})
    return {"dataset__name": "arrays", "dataset__path": str(folder / "data.npz")}


def opened(made):
    check.check_anywhere(made)
    everything = datasets.dataset(made)
    return datasets.training_split(made, everything)


@pytest.mark.parametrize(
    ("differences", "messages"),
    [
        ({"dataset__path": "nowhere"}, ["dataset.path='nowhere' is not a file"]),
        ({"dataset__split_by": "month"}, ["dataset.split_by='month'", "Allowed: class"]),
        ({"batch__classes": 5}, ["batch.classes=5 is more than the 4 training classes"]),
        (
            {"batch__classes": 2, "batch__per_class": 6},
            ["batch.per_class=6, but 4 of 4", "batch.small_classes='drop'"],
        ),
        (
            {"dataset__label_noise": 0.5, "dataset__noise_kind": "within_group"},
            ["dataset.noise_kind='within_group' needs groups"],
        ),
        (
            {"batch__scores": "{folder}/data.npz", "batch__classes": 2, "batch__per_class": 2},
            ["batch.scores=", "lacks ['data', 'difficulty', 'groups']", "experiments.score"],
        ),
    ],
)
def test_what_the_library_refuses_names_the_fields(differences, messages, tmp_path):
    fields = arrays(tmp_path) | {"dataset__test_fraction": 0.0, "dataset__validation_fraction": 0.0}
    fields |= {"model__name": "mlp", "batch__classes": 4, "batch__per_class": 2}
    fields |= {"augment__shift": 0.0, "augment__rotate": 0.0, "augment__scale": 0.0}
    given = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value
        for name, value in differences.items()
    }
    with pytest.raises(errors.InputError) as refused:
        opened(config(**fields | given))
    for message in messages:
        assert message in str(refused.value)


def test_the_loss_names_the_fields_of_its_metric():
    with pytest.raises(errors.InputError, match="^loss.metric='euclidean' does not suit info_nce"):
        check.check(config(loss__name="info_nce"))


def test_a_run_without_embeddings_names_the_program_that_makes_them(tmp_path):
    with pytest.raises(errors.InputError, match="experiments.evaluate --workdir="):
        data_json.read_embeddings(tmp_path)
