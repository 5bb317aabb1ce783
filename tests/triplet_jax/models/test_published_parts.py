"""Arrays that are published together with others, as a sum, or not at all."""

import dataclasses

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.models import published
from triplet_jax.models.published import AS_IS, DENSE, Layout, Part, Stored

GRID = Part(1, 4, 4)
LAYOUT = Layout(
    "fused",
    {
        ("params", "query"): Stored("qk.weight", DENSE, Part(0, 2, 4)),
        ("params", "key"): Stored("qk.weight", DENSE, Part(2, 4, 4)),
        ("params", "token"): Stored("token", plus=Stored("position", AS_IS, Part(0, 1, 4))),
        ("params", "position"): Stored("position", AS_IS, GRID),
        ("params", "bias"): Stored(None),
    },
)
VARIABLES = {
    "params": {
        "query": np.zeros((3, 2)),
        "key": np.zeros((3, 2)),
        "token": np.zeros((1, 3)),
        "position": np.zeros((3, 3)),
        "bias": np.zeros(2),
    }
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"qk.weight": (4, 3), "token": (1, 3), "position": (4, 3)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_parts_of_an_array_and_sums_are_read(tensors):
    params = published.fill(VARIABLES, tensors, (LAYOUT,)).variables["params"]
    np.testing.assert_array_equal(params["query"], tensors["qk.weight"][:2].T)
    np.testing.assert_array_equal(params["key"], tensors["qk.weight"][2:].T)
    np.testing.assert_array_equal(params["token"], tensors["token"] + tensors["position"][:1])
    np.testing.assert_array_equal(params["position"], tensors["position"][1:])
    np.testing.assert_array_equal(params["bias"], [0, 0])


def test_what_is_published_is_read_as_the_same_arrays(tensors):
    filled = published.fill(VARIABLES, tensors, (LAYOUT,)).variables
    again = published.published(filled, LAYOUT)
    assert {name: x.shape for name, x in again.items()} == {n: x.shape for n, x in tensors.items()}
    np.testing.assert_array_equal(again["qk.weight"], tensors["qk.weight"])
    np.testing.assert_array_equal(again["position"][0], [0, 0, 0])  # its sum is in the token
    refilled = published.fill(VARIABLES, again, (LAYOUT,)).variables
    for name, array in filled["params"].items():
        np.testing.assert_array_equal(refilled["params"][name], array)


def test_an_array_with_too_few_rows_is_refused(tensors):
    tensors["qk.weight"] = tensors["qk.weight"][:3]
    with pytest.raises(errors.InputError, match=r"qk.weight \[3, 3\], for params/query \[3, 2\]"):
        published.fill(VARIABLES, tensors, (LAYOUT,))


def test_an_array_without_a_name_is_published_only_if_it_is_zero(tensors):
    params = published.fill(VARIABLES, tensors, (LAYOUT,)).variables["params"]
    with pytest.raises(errors.InputError, match="params/bias cannot be published"):
        published.published({"params": params | {"bias": np.ones(2)}}, LAYOUT)


def test_a_layout_of_other_arrays_is_refused(tensors):
    more = {"params": VARIABLES["params"] | {"temperature": np.ones(1)}}
    fewer = {"params": {k: x for k, x in VARIABLES["params"].items() if k != "bias"}}
    for variables, words in (
        (more, "'fused' forgets arrays of the backbone:\n  params/temperature"),
        (fewer, "'fused' has arrays that the backbone has not:\n  params/bias"),
    ):
        with pytest.raises(errors.InputError, match=words):
            published.published(variables, LAYOUT)
        with pytest.raises(errors.InputError, match=words):
            published.fill(variables, tensors, (LAYOUT,))


def test_the_layout_without_the_missing_array_is_taken(tensors):
    more = Layout("more", LAYOUT.arrays | {("params", "bias"): Stored("bias")})
    for layouts in [(LAYOUT, more), (more, LAYOUT)]:
        assert published.fill(VARIABLES, tensors, layouts).layout == "fused"
        with_bias = tensors | {"bias": np.ones(2, np.float32)}
        assert published.fill(VARIABLES, with_bias, layouts).layout == "more"


def test_what_the_library_has_and_we_have_not_is_published_as_zeros(tensors):
    layout = dataclasses.replace(LAYOUT, zeros={"head.bias": (2,)})
    filled = published.fill(VARIABLES, tensors, (layout,))
    assert filled.left_out == ()
    again = published.published(filled.variables, layout)
    np.testing.assert_array_equal(again["head.bias"], [0, 0])
    assert published.fill(VARIABLES, again, (layout,)).left_out == ("head.bias",)
    again["head.bias"] = np.array([0, 1], np.float32)
    with pytest.raises(errors.InputError, match="not zero, for which .* no place:\n  head.bias"):
        published.fill(VARIABLES, again, (layout,))
