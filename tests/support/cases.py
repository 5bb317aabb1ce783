"""Cases of a parametrised test, of which a few tell what most changes could break."""

import pytest


def mostly_slow(cases, quick):
    """All but the quick ones are marked `slow`: they are longer paths to the same property."""
    cases, quick = list(cases), list(quick)
    assert all(case in cases for case in quick), (cases, quick)
    return [
        case
        if case in quick
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
