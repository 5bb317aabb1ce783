"""Early stopping: a run ends once its validation score no longer improves."""

import dataclasses


@dataclasses.dataclass
class Patience:
    """Counts the evaluations since the best one.

    >>> patience = Patience(2)
    >>> for score in (0.5, 0.6, 0.6, 0.4):
    ...     patience.note(score)
    >>> patience.is_over
    True

    Args:
      most: the evaluations without a better score after which a run ends; 0 for no end.
      best: the best score so far.
      since: the evaluations after the best one. An equal score is no better.
    """

    most: int
    best: float = -float("inf")
    since: int = 0

    def note(self, score: float | None) -> None:
        """Counts an evaluation; one without a score counts for nothing."""
        if score is None:
            return
        if score > self.best:
            self.best, self.since = score, 0
        else:
            self.since += 1

    @property
    def is_over(self) -> bool:
        """Whether the run ends here."""
        return 0 < self.most <= self.since
