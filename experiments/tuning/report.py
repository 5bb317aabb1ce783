"""Writes what a study found into its folder, and prints it."""

import pathlib

import rich.console
import rich.table

from experiments.tuning import written_configs
from experiments.tuning.outcome import STATES, Outcome
from experiments.tuning.space import Space
from triplet_jax.runs import files

MOST_SHOWN = 10


def write(found: Outcome, space: Space, workdir: pathlib.Path) -> None:
    """Writes trials.csv, result.json, best.py and confirm.py, and prints the best trials.

    Args:
      found: what the study found.
      space: what it searched.
      workdir: of the study.
    """
    written = {
        "trials.csv": found.table.to_csv(index=False),
        "result.json": files.as_json(_result(found, space), indent=2) + "\n",
    }
    default = space.of_run(found.study.run)
    if found.best is not None:
        point = space.differences(found.best.point)
        written["best.py"] = written_configs.best(found, point, workdir / "best.py")
        if found.best.point != default:
            path = workdir / "confirm.py"
            written["confirm.py"] = written_configs.confirm(found, point, path)
    for name in {"best.py", "confirm.py"} - written.keys():  # of a study that has grown since
        (workdir / name).unlink(missing_ok=True)
    for name, text in written.items():
        files.write_text(workdir / name, text)
    show(found, default)
    for name in written:
        print(f"written to {workdir / name}")
    if "confirm.py" in written:
        print(
            f"On fresh seeds and the test split: python -m experiments.sweep"
            f" --config={workdir / 'confirm.py'} --workdir={workdir / 'confirm'}"
        )


def show(found: Outcome, default: dict | None) -> None:
    """Prints the best trials, and the errors of those that failed.

    Args:
      found: what the study found.
      default: the point of the study's own config; None where the space does not hold it.
    """
    console = rich.console.Console()
    names = list(next(iter(found.trials.values())).point)
    # The last part of a name, where it is enough.
    last = [name.rpartition(".")[2] for name in names]
    shown = last if len(set(last)) == len(last) else names
    table = rich.table.Table("trial", found.value, *shown, caption=found.budget)
    for row in found.ranked.head(MOST_SHOWN).to_dict("records"):
        is_default = found.trials[row["trial"]].point == default
        label = f"{row['trial']}{' (default)' * is_default}"
        table.add_row(label, f"{row['value']:.4f}", *(_cell(row[name]) for name in names))
    console.print(table)
    for row in found.table[found.table.state == "failed"].to_dict("records"):
        console.print(f"failed: trial {row['trial']}: {row['error']}", soft_wrap=True, markup=False)
    if found.best is None:
        console.print("No trial was trained to the end.")
    elif found.best.point == default:
        console.print("No trial was better than the config that the study began with.")


def _cell(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _result(found, space):
    states = found.table.state.value_counts().to_dict()
    best = found.best
    return {
        "value": found.value,
        "budget": {
            "trials": len(found.table),
            **{name: int(states.get(name, 0)) for name in STATES},
            "steps_of_a_run": found.study.run.train.steps,
            "seeds": list(found.study.seeds),
            "steps": int(found.table.steps.sum()),
            "seconds": float(found.table.seconds.sum()),
        },
        "best": best
        and {
            "trial": best.number,
            "value": float(found.ranked.value.iloc[0]),
            "point": best.point,
            "fields": space.differences(best.point),
        },
    }
