"""Progress on the terminal: a live line where there is one, plain lines where there isn't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.core.values import Trial
from trimtab.reports.words import duration, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

_STYLES = {"kept": "green", "dropped": "yellow", "failed": "red"}


class Live:
    """Tells what runs, what is best so far and how much time is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._best = ""

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def stage(self, text: str) -> None:
        """Print what begins."""
        from rich.text import Text

        self._print(Text(printable(text), style="bold"))
        self._show(text)

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        """Show what runs now, and the time left."""
        left = duration(max(0.0, budget_s - spent_s))
        best = f" · best so far: {self._best}" if self._best else ""
        self._show(f"{name} · {left} left{best}")

    def done(self, trial: Trial, best: Trial | None) -> None:
        """Print how a trial ended."""
        from rich.text import Text

        ratio = f" {trial.screening.value:.2f}× the time of the model as given" if trial.screening else ""
        why = f": {trial.reason}" if trial.reason else ""
        ended = (trial.state, _STYLES.get(trial.state, ""))
        self._print(Text.assemble("  ", ended, printable(f" {trial.name}{ratio}{why}")))
        self._best = best.name if best else ""

    def _print(self, line: Text) -> None:
        """Print a line; where nobody looks it stays one, however long, for programs that read lines."""
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _show(self, text: str) -> None:
        from rich.text import Text

        if self._status is not None:
            self._status.update(Text(printable(text)))
