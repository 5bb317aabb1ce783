"""Sweeps of small runs, as a user writes and starts them."""

import json

import pytest

from configs import digits
from configs.sweeps import base as sweeps
from experiments.run import config_json
from experiments.sweeps import plan
from tests.support import programs

SMALL = {
    "model.name": "mlp",
    "model.width": 16,
    "model.dim": 8,
    "train.steps": 60,
    "evaluate.every": 20,
    "evaluate.episodes": 20,
    "log.telemetry_every": 20,
    "batch.per_class": 6,
}
ARMS = """
    sweep.arms = (
        ("semi_hard", {}),
        ("margin", {"loss.margin": 0.5, "optimizer.learning_rate": 3e-3}),
        ("curriculum", {
            "mining.miner": "quantile",
            "schedules.hardness": {"field": "mining.knobs.hardness", "start": 0.2, "a": 0.5},
        }),
    )
"""


def config_file(folder, arms=ARMS, more=""):
    """A sweep's config, as a user writes one."""
    path = folder / "small.py"
    fields = "\n".join(f"    run.{name} = {value!r}" for name, value in SMALL.items())
    path.write_text(
        "from configs import digits\nfrom configs.sweeps import base\n\n\n"
        f"def get_config():\n    run = digits.get_config()\n{fields}\n"
        f"    sweep = base.get_config(run)\n    sweep.claim = 'Any arm is better'\n"
        f"    sweep.reference = 'semi_hard'\n    sweep.seeds = (0, 1)\n{arms}{more}"
        "    return sweep\n"
    )
    return path


def finished(path, workdir, *flags):
    """What the program did, once it has ended."""
    return programs.run("sweep", f"--config={path}", f"--workdir={workdir}", *flags)


def made(**fields):
    """A sweep of two arms with these fields."""
    run = digits.get_config()
    run.update_from_flattened_dict(SMALL | {"batch.per_class": 8})  # tests have 8 devices
    sweep = sweeps.get_config(run)
    sweep.arms = (("one", {}), ("two", {"loss.margin": 0.5}))
    sweep.reference = "one"
    sweep.update(fields)
    return sweep


def planned(tmp_path, **fields):
    """The runs of such a sweep, of which none is done."""
    return plan.plan(made(**fields), tmp_path)


def of_one_arm(tmp_path, seeds):
    """The runs of a sweep of one arm, one for each seed."""
    return planned(tmp_path, arms=(("one", {}),), seeds=tuple(range(seeds)))


def a_run(tmp_path):
    """One of a sweep, that is not done."""
    (run,) = of_one_arm(tmp_path, 1)
    run.folder.mkdir(parents=True)
    return run


def finish(run, validation, test):
    """Leaves the files of a finished run with these scores."""
    run.folder.mkdir(parents=True, exist_ok=True)
    config_json.remember(run.folder, run.config)
    steps = run.config.train.steps
    rows = [{"step": steps, "loss": 0.1}, {"step": steps, "validation/map_at_r": validation}]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"embedding": {"retrieval": {"map_at_r": test}}, "trained_steps": steps}
    (run.folder / "result.json").write_text(json.dumps(scores))


def scores(workdir):
    """The score and the metrics of each run of a sweep, by its folder."""
    found = {}
    for path in sorted(workdir.glob("runs/**/result.json")):
        rows = [
            json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()
        ]
        result = json.loads(path.read_text())["embedding"]["retrieval"]["map_at_r"]
        found[str(path.parent.relative_to(workdir))] = (result, rows)
    return found


def assert_same_runs(ours, theirs, tolerance):
    """Two sweeps have the same runs; `tolerance` is that of their scores."""
    assert ours.keys() == theirs.keys()
    for name, (score, rows) in ours.items():
        other, other_rows = theirs[name]
        assert score == pytest.approx(other, abs=tolerance), name
        assert [row.keys() for row in rows] == [row.keys() for row in other_rows], name
        first, other_first = rows[0], other_rows[0]
        for key, value in first.items():
            assert value == pytest.approx(other_first[key], rel=1e-3, abs=1e-4), (name, key)
