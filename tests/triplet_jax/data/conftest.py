"""Folders that the tests of several modules read."""

import pytest

from tests.support.image_folders import save_image


@pytest.fixture
def class_folders(tmp_path):
    for c, name in enumerate(("cat", "dog", "emu")):
        for i in range(4):
            save_image(tmp_path / name / f"{i}.{'png' if i % 2 else 'jpg'}", 80 * c)
    return tmp_path
