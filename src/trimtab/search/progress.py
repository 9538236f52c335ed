"""What a search tells while it runs."""

from __future__ import annotations

from typing import Protocol

from trimtab.core.values import Trial


class Progress(Protocol):
    """Hears what runs, what is best so far, and how much of the budget is gone."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""
        ...

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        """A trial begins."""
        ...

    def done(self, trial: Trial, best: Trial | None) -> None:
        """A trial ended; `best` is the best one so far."""
        ...


class Silent:
    """Tells nobody."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        """Say nothing."""

    def done(self, trial: Trial, best: Trial | None) -> None:
        """Say nothing."""
