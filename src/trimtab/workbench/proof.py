"""The proof: finalists meet items that the search never saw, the safest first, stopping at the first failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.core.files import make_folder
from trimtab.core.memo import remembered
from trimtab.core.protocols import Array
from trimtab.core.values import Goal, NoWorse, Split, Task, Trial, Variant
from trimtab.meters.judge import judge, reference_labels
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session
from trimtab.search.race import Race
from trimtab.stats.noninferiority import fewest_items
from trimtab.stats.sequence import safest_first
from trimtab.workbench.ledger import look

_MOST = 4


def finalists(race: Race, untouched: Trial) -> list[Trial]:
    """Return the trials worth proving: the best untouched, the fastest few, and the safest of those that gain."""
    limit = race.score(untouched)
    gaining = [t for t in race.trials if t.state == "kept" and t.steps and race.score(t) < limit]
    gaining = [t for t in gaining if t.variant is not None and t.name != untouched.name]
    gaining.sort(key=race.score)
    likely = [t for t in gaining if safety(t, race.shop.task) > -1.0]
    chosen = likely[: _MOST - 1]
    if gaining:
        safest = max(gaining, key=lambda trial: safety(trial, race.shop.task))
        if safest not in chosen:
            chosen.append(safest)
    if untouched.state == "kept" and untouched.name not in {t.name for t in chosen}:
        chosen.append(untouched)
    return [chosen[place] for place in safest_first([safety(trial, race.shop.task) for trial in chosen])]


def safety(trial: Trial, task: Task) -> float:
    """Return by how many standard errors a trial may be expected to clear the test on the certify split."""
    split = task.split("certify")
    if trial.quality is None or split is None:
        return 0.0
    quality = trial.quality
    items = max(quality.items, 1)
    changed = (quality.better + quality.worse + 1.0) / (items + 1.0)
    spread = np.sqrt(max(changed - quality.difference**2, 1e-9) / len(split))
    return float((quality.max_drop + quality.difference) / spread - 1.645)


def prove_all(race: Race, chosen: Sequence[Trial], folder: Path) -> dict[str, NoWorse]:
    """Test the trials in the order given, each at full risk, stopping at the first that isn't proven.

    Returns what was found by trial name; trials behind a failure are missing.
    """
    split = race.shop.task.split("certify")
    if split is None or race.goal.max_drop is None:
        return {}
    found: dict[str, NoWorse] = {}
    for trial in chosen:
        assert trial.variant is not None
        proof = prove(race, trial.variant, split, folder)
        found[trial.name] = proof
        if not proof.proven:
            break
    return found


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
        if variant.key == race.shop.original.key:
            return replace(found, proven=True, method="the same variant", reason="")
        return _explained(found, goal, split)

    proof = remembered(folder / "proofs" / f"{key}.json", NoWorse, make)
    look(split.digest, variant.key, folder.parent)
    return proof


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
    make_folder(path.parent)
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, outputs, allow_pickle=False)
    temporary.replace(path)
    return outputs


def _explained(found: NoWorse, goal: Goal, split: Split) -> NoWorse:
    """Say so when the items could not have proven anything."""
    if found.proven or goal.max_drop is None:
        return found
    fewest = fewest_items(goal.max_drop, goal.error)
    if len(split) < fewest:
        reason = (
            f"the certify split has {len(split)} items: no proof of {100 * goal.max_drop:g} pt exists below {fewest}"
        )
        return replace(found, reason=reason, needed=max(found.needed or 0, fewest))
    return found
