from triplet_jax.training.numbers import Numbers

CONSTANT = {"margin": 0.2, "knobs.scale": None, "knobs.width": 2, "knobs_of_others": 1}


def test_a_moved_number_hides_the_constant():
    numbers = Numbers(CONSTANT, {"margin": 0.3, "knobs.scale": 4.0})
    assert numbers["margin"] == 0.3
    assert numbers["knobs.width"] == 2
    assert dict(numbers) == {**CONSTANT, "margin": 0.3, "knobs.scale": 4.0}
    assert len(numbers) == len(CONSTANT)
    assert numbers.constant["margin"] == 0.2


def test_below_an_owner_are_its_own_numbers_without_those_that_are_not_set():
    assert Numbers(CONSTANT).below("knobs") == {"width": 2}
    assert Numbers(CONSTANT, {"knobs.scale": 4.0}).below("knobs") == {"width": 2, "scale": 4.0}
    assert Numbers(CONSTANT).below("nobody") == {}
