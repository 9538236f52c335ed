"""Logs a run through the trackers that were chosen, so that people find it where they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core import plugins
from trimtab.core.memo import remembered
from trimtab.core.protocols import Tracker
from trimtab.core.values import Reading, Result, Scalar, Trial, content_digest, options
from trimtab.reports import lineup
from trimtab.search.progress import Progress


def trackers(typed: Sequence[str]) -> dict[str, Tracker]:
    """Return the trackers typed as "name" or "name:option=value,option=value"; `BadInput` for one that isn't known."""
    parts = {text: plugins.typed("trackers", text) for text in typed}
    return {text: plugins.make("trackers", name, options(given)) for text, (name, given) in parts.items()}


class Track:
    """Logs each trial as it ends, and tells everything on to the progress that it stands before.

    A tracker that fails is left out from then on, with one warning: it never costs the run. A block that is left by an
    error ends the run as "failed", or "killed" where it was the user's Ctrl-C.
    """

    def __init__(self, chosen: Mapping[str, Tracker], progress: Progress) -> None:
        self.warnings: list[str] = []
        self._trackers = dict(chosen)
        self._progress = progress
        self._step = 0
        self._begun = False

    def start(self, work: Path, configuration: Mapping[str, Scalar], before: Sequence[Trial]) -> None:
        """Begin or continue the run of that work folder; a tracker that is new to it is told the trials before."""
        self._step, self._begun = len(before), True
        for text, tracker in list(self._trackers.items()):
            kept = work / "tracked" / f"{content_digest(text)}.json"
            told = () if kept.is_file() else before
            name = remembered(kept, str, lambda: _run_name(work.parent.resolve()))

            def begin(tracker: Tracker, name: str = name, told: Sequence[Trial] = told) -> None:
                tracker.start(name, configuration)
                for step, trial in enumerate(told, start=1):
                    tracker.log(trial_readings(trial), step)

            self._call(text, tracker, begin)

    def stage(self, text: str) -> None:
        """Tell it on."""
        self._progress.stage(text)

    def begin(self, name: str, spent_s: float, budget_s: float) -> None:
        """Tell it on."""
        self._progress.begin(name, spent_s, budget_s)

    def done(self, trial: Trial, best: Trial | None) -> None:
        """Log a trial and tell it on."""
        self._step += 1
        self._every(lambda tracker: tracker.log(trial_readings(trial), self._step))
        self._progress.done(trial, best)

    def conclude(self, result: Result) -> None:
        """Log the final readings: those of the winner, or else of the model as given."""
        shown = lineup.champion(result) or lineup.original(result)
        self._every(lambda tracker: tracker.log(shown.readings, self._step + 1))

    def end(self, status: str, artifacts: Sequence[Path] = ()) -> None:
        """End the run with the files it made."""
        self._begun = False
        self._every(lambda tracker: tracker.end(status, artifacts))

    def __enter__(self) -> Track:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._begun:
            self.end("killed" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _every(self, call: Callable[[Tracker], None]) -> None:
        for text, tracker in list(self._trackers.items()):
            self._call(text, tracker, call)

    def _call(self, text: str, tracker: Tracker, call: Callable[[Tracker], None]) -> None:
        try:
            call(tracker)
        except Exception as error:  # noqa: BLE001 # trackers raise types of their own, and must not cost the run
            del self._trackers[text]
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self.warnings.append(f"the tracker {text} failed and was left out from then on: {said}")


def trial_readings(trial: Trial) -> tuple[Reading, ...]:
    """Return what a tracker is told of a trial: how it ended, what was read, and time and quality as screened."""
    ended = f"{trial.name}: {trial.state}" + f" ({trial.reason})" * bool(trial.reason)
    spent = Reading(name="trial_time", value=trial.seconds, unit="s", source="the search", scope=ended)
    read = trial.measurement.readings if trial.measurement else ()
    return (spent, *lineup.against(trial.screening, trial.quality), *read)


def _run_name(folder: Path) -> str:
    """Return a name that people know the run by and that no other run has."""
    return f"{folder.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{content_digest(str(folder))[:4]}"
