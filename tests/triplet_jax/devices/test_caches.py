"""Sizes that follow the caches of the machine."""

import os

import pytest

from triplet_jax.devices import caches


@pytest.mark.parametrize(
    ("given", "found"),
    [(2**21, 2**21), (2**18, 2**18), (0, 2**20), (-1, 2**20), (335544320, 2**20)],
)
def test_a_size_that_no_core_has_is_not_believed(given, found, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_LEVEL2_CACHE_SIZE": given}.__getitem__)
    assert caches.second_level() == found


def test_a_system_that_does_not_say_has_the_usual_size(monkeypatch):
    def refuse(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert caches.second_level() == 2**20
