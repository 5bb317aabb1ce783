"""What `experiments.embed` writes."""

import pathlib

import numpy as np
import pytest

from experiments import embed
from tests.support.image_folders import save_image
from triplet_jax.data import folder_layout, folder_listing
from triplet_jax.evaluation import embedding_files


@pytest.mark.parametrize("name", ["mine.npz", "mine.parquet"])
def test_files_of_embeddings_are_read_by_evaluation(tmp_path, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pip install 'triplet_jax[search]'")
    root = tmp_path / "images"
    for i in range(6):
        save_image(root / "ab"[i % 2] / f"{i}.png", i)
    files = folder_listing.find(root, folder_layout.layout_of(root, class_level=1)).files
    x = np.random.default_rng(0).normal(size=(len(files), 3)).astype(np.float32)
    embed.write(tmp_path / name, files, x)
    found = embedding_files.read(str(tmp_path / name))
    assert np.array_equal(found.embeddings, x)
    assert found.labels.tolist() == [pathlib.Path(file.path).parent.name for file in files]
