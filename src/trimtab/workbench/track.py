"""Logs a run through the trackers that were chosen, so that people find it where they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from trimtab.core import plugins
from trimtab.core.codec import dumps
from trimtab.core.files import write_text
from trimtab.core.memo import remembered
from trimtab.core.protocols import Tracker
from trimtab.core.values import Reading, Result, Scalar, Trial, content_digest, options
from trimtab.reports import lineup
from trimtab.search.progress import Progress


def trackers(typed: Sequence[str]) -> dict[str, Tracker]:
    """Return the trackers typed as "name" or "name:option=value,option=value"; `BadInput` for one that isn't known."""
    parts = {text: plugins.typed("trackers", text) for text in typed}
    return {text: plugins.make("trackers", name, options(given)) for text, (name, given) in parts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a tracker knows of a run: by which name, and up to which step."""

    name: str
    step: int


class Log:
    """Logs a run step by step, each step once, however often the run is killed and goes on.

    A tracker that fails is left out from then on, with one warning: it never costs the run. A block that is left by an
    error ends the run as "failed", or "killed" where it was the user's Ctrl-C.
    """

    def __init__(self, chosen: Mapping[str, Tracker]) -> None:
        self.warnings: list[str] = []
        self._trackers = dict(chosen)
        self._told: dict[str, Told] = {}
        self._work = Path()
        self._begun = False

    def start(self, work: Path, configuration: Mapping[str, Scalar], before: Sequence[Sequence[Reading]] = ()) -> None:
        """Begin or continue the run of that work folder; each tracker is told the steps before that it doesn't know."""
        self._work, self._begun = work, True
        fresh = Told(name=_run_name(work.parent.resolve()), step=0)
        self._told = {text: remembered(self._kept(text), Told, lambda: fresh) for text in self._trackers}
        self._every(lambda text, tracker: tracker.start(self._told[text].name, configuration))
        for step, readings in enumerate(before, start=1):
            self.log(readings, step)

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Log the readings of a step to every tracker that has not heard of it."""

        def tell(text: str, tracker: Tracker) -> None:
            if step > self._told[text].step:
                # noted first: a kill between the two leaves a step out, the other way round it would be there twice
                self._told[text] = replace(self._told[text], step=step)
                write_text(self._kept(text), dumps(self._told[text]))
                tracker.log(readings, step)

        self._every(tell)

    def end(self, status: str, artifacts: Sequence[Path] = ()) -> None:
        """End the run with the files it made."""
        self._begun = False
        self._every(lambda text, tracker: tracker.end(status, artifacts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._begun:
            self.end("killed" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _kept(self, text: str) -> Path:
        return self._work / "tracked" / f"{content_digest(text)}.json"

    def _every(self, call: Callable[[str, Tracker], None]) -> None:
        for text, tracker in list(self._trackers.items()):
            try:
                call(text, tracker)
            except Exception as error:  # noqa: BLE001 # trackers raise types of their own, and must not cost the run
                del self._trackers[text]
                said = " ".join(str(error).split())[:200] or type(error).__name__
                self.warnings.append(f"the tracker {text} failed and was left out from then on: {said}")


class Track(Log):
    """Logs each trial of a search as it ends, and tells everything on to the progress that it stands before."""

    def __init__(self, chosen: Mapping[str, Tracker], progress: Progress) -> None:
        super().__init__(chosen)
        self._progress = progress
        self._step = 0

    def start(self, work: Path, configuration: Mapping[str, Scalar], before: Sequence[Sequence[Reading]] = ()) -> None:
        """Begin or continue the run of that work folder after the trials with these readings."""
        self._step = len(before)
        super().start(work, configuration, before)

    def stage(self, text: str) -> None:
        """Tell it on."""
        self._progress.stage(text)

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        """Tell it on."""
        self._progress.begin(name, spent_s, budget_s)

    def done(self, trial: Trial, best: Trial | None) -> None:
        """Log a trial and tell it on."""
        self._step += 1
        self.log(trial_readings(trial), self._step)
        self._progress.done(trial, best)

    def conclude(self, result: Result) -> None:
        """Log the final readings: those of the winner, or else of the model as given."""
        shown = lineup.champion(result) or lineup.original(result)
        self._every(lambda text, tracker: tracker.log(shown.readings, self._step + 1))  # no trial: more may follow


def trial_readings(trial: Trial) -> tuple[Reading, ...]:
    """Return what a tracker is told of a trial: how it ended, what was read, and time and quality as screened."""
    ended = f"{trial.name}: {trial.state}" + f" ({trial.reason})" * bool(trial.reason)
    spent = Reading(name="trial_time", value=trial.seconds, unit="s", source="the search", scope=ended)
    read = trial.measurement.readings if trial.measurement else ()
    return (spent, *lineup.against(trial.screening, trial.quality), *read)


def named(given: Any) -> str | None:
    """Return a path as it was given, of what was given in Python its kind."""
    return None if given is None else str(given) if isinstance(given, str | Path) else type(given).__name__


def _run_name(folder: Path) -> str:
    """Return a name that people know the run by and that no other run has."""
    return f"{folder.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{content_digest(str(folder))[:4]}"
