"""The play-off: those that looked fastest are timed again in fresh processes, half of them at a time.

While searching, a candidate is timed for seconds in one process. Two processes of one model differ by more than its
blocks do, and the luckiest of thirty looks faster than it is. So the leaders run against each other again, the first
times forgotten, and those that only seemed too slow run with them. The field is halved as in K. Jamieson &
A. Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimtab.core.memo import remembered
from trimtab.core.values import Ratio, Trial
from trimtab.search.race import TIMED, Race, outpaced
from trimtab.workbench.timing import TimingPlan, field_folder, time_trials

_SHARE, _SHARE_MOST_S = 0.1, 180.0  # of the budget, kept back for this
_NEAR = 1.5  # times the best screening: within it, luck may have decided
_MOST, _FEWEST = 8, 4
_EACH_S = 4.0  # what one of the field takes at least
_PROCESS_BYTES = 400e6  # of an engine, beside a few copies of the model


def play_off(race: Race, untouched: Sequence[Trial], folder: Path) -> None:
    """Time the leaders again, halve the field, time those again; the race's trials are corrected by what was found.

    The best of the untouched trials run in any case: they are the baseline. What was timed of a field is kept in the
    folder, for a run that is continued.
    """
    until = time.monotonic() + min(race.budget.left(), 2 * share_s(race))
    field = leaders(race, race.trials, untouched, _room(race))
    if race.goal.objective not in TIMED or len(field) < 2:
        return
    race.close()
    race.progress.stage("play-off: the leaders again, in fresh processes")
    for number in range(2):
        last = number == 1 or len(field) <= _FEWEST
        seconds = (until - time.monotonic()) / (1 if last else 2)
        field = _timed(race, field, folder / str(number), max(_EACH_S * len(field), seconds))
        if last or time.monotonic() > until:
            return
        again = [race.corrected[trial.name] for trial in field]
        field = leaders(race, again, untouched, max(_FEWEST, len(field) // 2))


def share_s(race: Race) -> float:
    """Return the seconds of the budget that are kept back for this; twice as many may be used if they are left."""
    return min(_SHARE * race.budget.seconds, _SHARE_MOST_S)


def leaders(race: Race, trials: Sequence[Trial], untouched: Sequence[Trial], most: int) -> list[Trial]:
    """Return the fastest of the trials that may still keep the goal, at most that many, and the untouched ones first.

    The model as given is not among them: it is what all are compared with.
    """
    able = [t for t in trials if t.variant and (t.state == "kept" or outpaced(t)) and t.name != race.names[0]]
    able.sort(key=race.score)
    near = [trial for trial in able if race.score(trial) <= _NEAR * race.score(able[0])]
    wanted = {trial.name for trial in untouched}
    plain = [trial for trial in able if trial.name in wanted]
    return [*plain, *(trial for trial in near if trial.name not in wanted)][:most]


def _room(race: Race) -> int:
    """Return how many may run at once, by the time and the memory that are left."""
    by_time = race.budget.left() / _EACH_S
    return int(np.clip(min(by_time, memory_room(race)), _FEWEST, _MOST))


def memory_room(race: Race) -> float:
    """Return for how many engines there is memory, beside those of the model as given and of the self-test."""
    read = race.trials[0].measurement
    each = 4 * ((read and read.value("bytes")) or 0) + _PROCESS_BYTES
    return (race.shop.memory_bytes or np.inf) / each - 2


def _timed(race: Race, field: Sequence[Trial], folder: Path, seconds: float) -> list[Trial]:
    """Correct trials by two fresh processes of each or more, in turn with the model as given; return those that ran."""
    race.progress.begin(f"{len(field)} leaders in turn", race.budget.elapsed(), race.budget.seconds)
    plan = TimingPlan(folder=folder, seconds=seconds, margin=race.goal.margin, seed=race.seed, processes=2)
    ran, timing = time_trials(race, [race.trials[0], *field], plan)
    for place, trial in enumerate(ran[1:], 1):
        race.corrected[trial.name] = _corrected(race, trial, timing.ratio(place, 0), field_folder(folder, ran))
    return ran[1:]


def _corrected(race: Race, trial: Trial, ratio: Ratio, folder: Path) -> Trial:
    assert trial.variant is not None
    path = folder / f"{trial.variant.key}.json"
    return remembered(path, Trial, lambda: race.retimed(trial, ratio))
