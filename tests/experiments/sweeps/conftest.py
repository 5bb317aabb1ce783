"""The sweep that several files of tests look at."""

import pytest

from tests.support import once, small_sweeps

NOISE = """
    sweep.settings = (("clean", {}), ("noisy", {"dataset.label_noise": 0.3}))
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.best_of = ("margin", "curriculum")
    sweep.processes = 1
"""


@pytest.fixture(scope="session")
def vectorised(tmp_path_factory):
    """A finished sweep by the default engine, and what it printed; no test may change it."""

    def train(folder):
        folder.mkdir()
        path = small_sweeps.config_file(folder, more=NOISE)
        done = small_sweeps.finished(path, folder / "out")
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    folder = once.made_once(tmp_path_factory, "vectorised", train)
    return folder / "small.py", folder / "out", (folder / "printed.txt").read_text()
