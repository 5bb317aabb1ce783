"""A package loads no library that only some of its functions need."""

import subprocess
import sys

import pytest

# Each costs seconds to import, or is an extra that is not always installed.
HEAVY = {
    *("flax", "grain", "jax", "lancedb", "matplotlib", "optax", "orbax", "pandas", "plotly"),
    *("mlflow", "scipy.spatial", "sklearn", "tensorboardX", "tensorflow_datasets", "trackio"),
    "wandb",
}
PRINT_LOADED = "import sys, {module}; print(*sys.modules)"


@pytest.mark.parametrize(
    ("module", "loaded"),
    [
        ("triplet_jax.data", set()),
        ("triplet_jax.data.tfds", set()),
        ("triplet_jax.runs.journal", set()),
        ("triplet_jax.models", {"jax", "flax"}),
        pytest.param("triplet_jax.evaluation.gallery", {"jax", "pandas"}, marks=pytest.mark.slow),
        pytest.param(
            "experiments.run.training", {"flax", "jax", "optax", "orbax"}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_module_loads_no_more_of_weight_than_it_needs(module, loaded):
    code = PRINT_LOADED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == loaded
