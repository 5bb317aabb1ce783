"""What a study found, gathered from its journal and the files of its runs."""

import dataclasses

import ml_collections
import pandas as pd

from experiments.tuning.studies import ENDED, Study
from experiments.tuning.trials import Trial

STATES = ("complete", "pruned", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a study found.

    Args:
      study: its config.
      trials: those that have ended, by number.
      table: a row for each of them: `trial`, `state`, `value`, the parts of the space, `steps`,
        `seconds`, `error`; `trials.csv`.
    """

    study: ml_collections.ConfigDict
    trials: dict[int, Trial]
    table: pd.DataFrame

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of the trials that were trained to the end, the best first."""
        done = self.table[self.table.state == "complete"]
        return done.sort_values("value", ascending=False, kind="stable")

    @property
    def best(self) -> Trial | None:
        """The best trial; None where none was trained to the end."""
        ranked = self.ranked
        return None if ranked.empty else self.trials[ranked.trial.iloc[0]]

    @property
    def value(self) -> str:
        """What the trials are judged by."""
        return f"validation {self.study.metric}"

    @property
    def budget(self) -> str:
        """What the study has cost, as a sentence."""
        states = self.table.state.value_counts()
        count = [f"{states[name]} {name}" for name in STATES if name in states]
        seeds = ", ".join(map(str, self.study.seeds))
        return (
            f"{len(self.table)} trials ({', '.join(count)}) of {self.study.run.train.steps:,} steps"
            f" with seed{'s' * (len(self.study.seeds) > 1)} {seeds}: {self.table.steps.sum():,}"
            f" steps, {self.table.seconds.sum() / 60:.1f} minutes"
        )


def read(shared: Study, study: ml_collections.ConfigDict) -> Outcome:
    """Gathers what the trials that have ended have left.

    Args:
      shared: the study.
      study: its config.
    """
    trials, rows = {}, []
    for record in shared.records(*ENDED):
        trial = trials[record.number] = shared.trial(record)
        rows.append(_row(trial, record))
    return Outcome(study, trials, pd.DataFrame(rows))


def _row(trial, record):
    state = {"FAIL": "failed"}.get(record.state.name, record.state.name.lower())
    return {
        "trial": trial.number,
        "state": state,
        "value": record.value if state == "complete" else float("nan"),
        **trial.point,
        "steps": trial.steps,
        "seconds": trial.seconds,
        "error": trial.error.splitlines()[0] if trial.error else "",
    }
