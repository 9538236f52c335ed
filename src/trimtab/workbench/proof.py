"""The proof: finalists meet items that the search never saw, the safest first, stopping at the first failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra, WorkerError
from trimtab.core.files import whole_file
from trimtab.core.memo import remembered
from trimtab.core.protocols import Array
from trimtab.core.values import Goal, NoWorse, Split, Task, Trial, Variant
from trimtab.meters.judge import judge, reference_labels
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session
from trimtab.search.plan import changed_share
from trimtab.search.race import Race
from trimtab.stats.sequence import fixed_sequence, safest_first
from trimtab.workbench.ledger import look

_MEASURE_SHARE, _MEASURE_MOST_S = 0.12, 240.0

_MOST, _FEWEST = 4, 2  # contenders, beside the best untouched
_SLACK = 1.15  # what an item takes beside the engine's call


def finalists(race: Race, untouched: Trial) -> list[Trial]:
    """Return the trials worth proving: the best untouched, the fastest few, and the safest of those that gain.

    They come in the order in which they are tested. How many there are depends on the time that is left: each answers
    every item of the certify split, on a slow model for minutes.
    """
    left = race.budget.seconds - measure_s(race) - race.budget.elapsed()
    most = int(np.clip(left / max(once_s(race), 1e-9) - 2, _FEWEST, _MOST))  # the original and the untouched come first
    kept = [t for t in race.trials if t.state == "kept" and t.name != untouched.name]
    least = race.score(untouched) if untouched.state == "kept" else np.inf  # one that a limit dropped is none to beat
    gaining = sorted((t for t in kept if t.steps and race.score(t) < least), key=race.score)
    safe = {trial.name: safety(trial, race.shop.task) for trial in (*gaining, untouched)}
    well_timed = [trial for trial in gaining if trial.name in race.corrected] or gaining
    chosen = [trial for trial in well_timed if safe[trial.name] > -1.0][:most]
    safest = max(gaining, key=lambda trial: safe[trial.name], default=untouched)
    if safest not in (*chosen, untouched):
        chosen = [*chosen[: most - 1], safest]
    if untouched.state == "kept":
        chosen.append(untouched)
    return [chosen[place] for place in safest_first([safe[trial.name] for trial in chosen])]


def measure_s(race: Race) -> float:
    """Return the seconds that final timing and measurements may take: a share of the budget, within what they need."""
    return min(_MEASURE_SHARE * race.budget.seconds, _MEASURE_MOST_S)


def once_s(race: Race) -> float:
    """Return about how long it takes to answer every item of the certify split once."""
    split = race.shop.task.split("certify")
    return _SLACK * (len(split) if split else 0) * race.latency_s / max(1, race.goal.workload.batch)


def safety(trial: Trial, task: Task) -> float:
    """Return by how many standard errors a trial may be expected to clear the test on the certify split."""
    split = task.split("certify")
    if trial.quality is None or split is None:
        return 0.0
    quality = trial.quality
    spread = np.sqrt(max(changed_share(quality) - quality.difference**2, 1e-9) / len(split))
    return float((quality.max_drop + quality.difference) / spread - 1.645)


def prove_all(race: Race, chosen: Sequence[Trial], folder: Path) -> dict[str, NoWorse]:
    """Test the trials in the order given, each at full risk, stopping at the first that isn't proven.

    Returns what was found by trial name; trials behind a failure are missing. One that can't answer the items (its
    engine crashes, its numbers overflow) has failed and is left out of the order: it can't be certified any more.
    """
    split = race.shop.task.split("certify")
    if split is None or race.goal.max_drop is None:
        return {}
    return dict(fixed_sequence(_tests(race, chosen, split, folder), lambda test: test[1].proven))


def _tests(race: Race, chosen: Sequence[Trial], split: Split, folder: Path) -> Iterator[tuple[str, NoWorse]]:
    task, goal = race.shop.task, race.goal
    answers_on(task, split, race.shop.original, goal, folder)  # where the original fails no finalist is to blame
    for trial in chosen:
        if trial.variant is None:
            continue
        try:
            answers_on(task, split, trial.variant, goal, folder)
        except (WorkerError, BadInput, MissingExtra) as error:
            race.fail(trial, f"failed on the certify split: {error}")
            continue
        yield trial.name, prove(race, trial.variant, split, folder)


def prove(race: Race, variant: Variant, split: Split, folder: Path) -> NoWorse:
    """Test one variant on the certify split; the result is kept, so that a re-run doesn't look twice."""
    task, goal = race.shop.task, race.goal
    key = f"{variant.key}-{split.digest}"

    def make() -> NoWorse:
        race.progress.begin(f"proving {variant.label()}", race.budget.elapsed(), race.budget.seconds)
        original = answers_on(task, split, race.shop.original, goal, folder)
        outputs = answers_on(task, split, variant, goal, folder)
        labels = reference_labels(task, split, original)
        names = (variant.key, race.shop.original.key)
        found = judge(task, split, labels, original, outputs, goal=goal, names=names)
        return of_itself(found) if variant.key == race.shop.original.key else found

    proof = remembered(folder / "proofs" / f"{key}.json", NoWorse, make)
    look(split, variant.key, folder.parent)
    return proof


def of_itself(found: NoWorse) -> NoWorse:
    """Return the verdict on a variant against itself: no statistics are needed, however few the items are.

    It fails only where, on another machine, the answers themselves lost more than is allowed.
    """
    if found.difference < -found.max_drop:
        return replace(found, proven=False)
    return replace(found, proven=True, method="the same variant", needed=None, reason="")


def answers_file(folder: Path, variant: Variant, split: Split) -> Path:
    """Return where the outputs of a variant on a split are kept."""
    return folder / "answers" / f"{variant.key}-{split.digest}.npy"


def answers_on(task: Task, split: Split, variant: Variant, goal: Goal, folder: Path) -> Array:
    """Return the outputs of a variant on a split, kept in the folder."""
    path = answers_file(folder, variant, split)
    if path.is_file():
        kept: Array = np.load(path, allow_pickle=False)
        return kept
    with open_session(variant, folder / "logs" / f"answers-{split.name}.log") as session:
        outputs = predict(session, task, split, goal.workload)
    with whole_file(path) as file:
        np.save(file, outputs, allow_pickle=False)
    return outputs
