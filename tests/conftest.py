"""Eight simulated devices, runtime checks of shapes, and where real data may be found."""

import gc
import os
import pathlib
import sys

from tests.support import compiling

# Before jax is imported. XLA_FLAGS=--xla_backend_optimization_level=3 compiles as on a user's
# machine; without it, only programs that tests start as a user does are compiled so.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get(
    "XLA_FLAGS", compiling.QUICKLY
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one test or program compiled, the next one loads: the workers share it, and so do later runs.
# Remove .pytest_cache to compile everything anew.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
)
# Features that runs keep are not among those of the person who runs the tests.
os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "cache")
# Not what an operation outside of `jax.jit` compiles: to keep it takes as long as to do it again.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# There is a worker for each core: threads beside them would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import jaxtyping
import pytest

compiling.in_few_contexts()

# Tracing makes many objects and hardly any garbage, and an eighth of the tests' time went into
# looking for it.
gc.set_threshold(50_000)

# Shapes in annotations are checked while the tests run, and cost nothing otherwise.
jaxtyping.install_import_hook("triplet_jax", "beartype.beartype")

hypothesis.settings.register_profile("default", deadline=None, max_examples=8)
hypothesis.settings.load_profile("default")


def pytest_collection_finish():
    gc.freeze()  # what was imported stays, and need not be looked through


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Linux lets a process map 65,530 pieces of memory, and every compiled program holds some."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 45_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """No program outlives the test that started it."""
    yield
    if programs := sys.modules.get("tests.support.programs"):
        programs.end_all()


@pytest.fixture
def unchecked():
    """The library as a user has it: without the tests' checks of shapes and types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory):
    """A finished run of `programs.TINY`, of which a test that changes it takes a copy."""
    from tests.support import once, programs

    def train(workdir):
        done = programs.run("train", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr

    return once.made_once(tmp_path_factory, "plain_run", train)


@pytest.fixture(scope="session")
def own_run(tmp_path_factory):
    """A folder of somebody's images, and a finished run on it; see `plain_run`."""
    from tests.support import once, own_images, programs

    def train(folder):
        own_images.paint(folder / "images")
        fields = own_images.FIELDS | {"dataset__path": folder / "images"}
        done = programs.run("train", f"--workdir={folder / 'run'}", **fields)
        assert done.returncode == 0, done.stderr

    folder = once.made_once(tmp_path_factory, "own_run", train)
    return folder / "images", folder / "run"


@pytest.fixture(scope="session")
def omniglot_dir():
    """A data_dir of tensorflow-datasets with Omniglot, named by TFDS_DATA_DIR."""
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not folder or not pathlib.Path(folder, "omniglot").is_dir():
        pytest.skip("set TFDS_DATA_DIR to a folder with a prepared omniglot to run this test")
    return folder
