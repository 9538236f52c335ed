"""Plans which items calibrate, select and certify: stratified by class, groups whole, the same under the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.data.table import JUDGE

Rows = NDArray[np.int64]

CALIBRATE_ITEMS = 300
"""No calibration method gains from more, and items spent here can't prove anything."""

SELECT_ITEMS = 1500
"""Enough to choose by: two models that differ in 4 % of their answers are told apart to half a point."""

SELECT_ITEMS_LEARNING = 5000
"""Training chooses among far more, each epoch a choice, and the luck of that has to be paid for in the proof."""

_ORDER = ("train", "calibrate", "select", "certify")
_CALIBRATE_SHARE = 8
_SELECT_SHARE, _SELECT_SHARE_LEARNING = 4, 3
SMALLEST = 8
"""Fewer items can't be divided into three parts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """What a plan must know of the items: strata (class numbers), groups and names given in advance, or None.

    `learning` says that networks will be trained, on the items named train.
    """

    count: int
    strata: Array | None = None
    groups: Array | None = None
    names: Array | None = None
    learning: bool = False


def plan(items: Items, seed: int) -> dict[str, Rows]:
    """Return the rows of each split, ascending; every item is in exactly one, and no group is in two.

    What the data names calibrate, select or certify stays so. Items named test, val or nothing are judged: they are
    divided into select (a quarter, at most 1500; for learning a third, at most 5000) and certify, and, only where
    nothing is named train or calibrate, calibrate (an eighth, at most 300). Otherwise calibrate is a sample of train,
    and the rest of train stays train.

    Raises:
        BadInput: there are too few items or groups, or items named in advance leave a split empty or tear a group.
    """
    names = np.full(items.count, "", dtype=str) if items.names is None else items.names.astype(str)
    given = {name: np.flatnonzero(names == name) for name in _ORDER}
    judged = np.flatnonzero(np.isin(names, ["", *JUDGE]))
    rng = np.random.default_rng(seed)
    splits = {name: rows for name, rows in given.items() if len(rows)}
    if "calibrate" not in splits and "train" in splits:
        pool = splits["train"]
        size = min(CALIBRATE_ITEMS, max(1, len(pool) // _CALIBRATE_SHARE))
        parts = _divide(items, pool, {"calibrate": size}, "train", rng)
        splits |= {name: rows for name, rows in parts.items() if len(rows)}
        if not len(parts["train"]):
            del splits["train"]
    wanted = _wanted(splits, len(judged), items.learning)
    if len(judged):
        for name, rows in _divide(items, judged, wanted, "certify", rng).items():
            splits[name] = np.union1d(splits.get(name, np.empty(0, dtype=np.int64)), rows)
    _check(splits, items)
    splits["select"] = _shuffled(splits["select"], items.groups, rng)
    return {name: splits[name] for name in _ORDER if name in splits}


def _shuffled(rows: Rows, groups: Array | None, rng: np.random.Generator) -> Rows:
    """Return rows in random order, those of one group one after the other.

    A search may stop reading at any item, so the order must not tell the class; and it counts groups that it has seen
    whole, so that must not tell their size either.
    """
    shuffled = rng.permutation(rows)
    if groups is None:
        return shuffled
    _, number = np.unique(groups[shuffled], return_inverse=True)
    return shuffled[np.argsort(rng.permutation(number.max() + 1)[number], kind="stable")]


def undivided(items: Items) -> dict[str, Rows]:
    """Return the rows of each split that the data names; all that are to be judged are certify. No split need be there.

    For items that were divided before, and are only looked for again.
    """
    names = np.full(items.count, "", dtype=str) if items.names is None else items.names.astype(str)
    names = np.where(np.isin(names, ["", *JUDGE]), "certify", names)
    return {name: np.flatnonzero(names == name) for name in _ORDER if name in names}


def _wanted(splits: dict[str, Rows], judged: int, learning: bool) -> dict[str, int]:
    if 0 < judged < SMALLEST:
        raise BadInput(f"{judged} items to judge are too few to calibrate, select and certify on; give a few hundred")
    wanted = {}
    if "calibrate" not in splits:
        wanted["calibrate"] = min(CALIBRATE_ITEMS, judged // _CALIBRATE_SHARE)
    if "select" not in splits:
        most, share = (SELECT_ITEMS_LEARNING, _SELECT_SHARE_LEARNING) if learning else (SELECT_ITEMS, _SELECT_SHARE)
        wanted["select"] = min(most, judged // share)
    return wanted


def _divide(items: Items, pool: Rows, wanted: dict[str, int], rest: str, rng: np.random.Generator) -> dict[str, Rows]:
    """Return `pool` divided into parts of the wanted sizes; what remains is named `rest`."""
    strata = np.zeros(len(pool), dtype=np.int64) if items.strata is None else items.strata[pool]
    if items.groups is not None:
        return _divide_groups(pool, strata, items.groups[pool], {**wanted, rest: 0}, rng)
    shuffled = rng.permutation(len(pool))
    left = shuffled[np.argsort(strata[shuffled], kind="stable")]
    parts = {}
    for name, size in wanted.items():
        taken = evenly(len(left), size)
        parts[name] = np.sort(pool[left[taken]])
        left = np.delete(left, taken)
    return {**parts, rest: np.sort(pool[left])}


def evenly(count: int, size: int) -> Rows:
    """Return `size` positions spread evenly over `count`.

    Over items sorted by class this is a systematic sample: each class gets its share to within one item.
    """
    return np.floor((np.arange(size) + 0.5) * count / max(size, 1)).astype(np.int64)


def _divide_groups(
    pool: Rows, strata: Array, groups: Array, wanted: dict[str, int], rng: np.random.Generator
) -> dict[str, Rows]:
    """Give whole groups, large ones first, to the split that lacks their classes most; only the last may overflow.

    A split that gets none so gets the smallest group of a split that has several.
    """
    _, number = np.unique(groups, return_inverse=True)
    _, stratum = np.unique(strata, return_inverse=True)
    counts = np.zeros((number.max() + 1, stratum.max() + 1))
    np.add.at(counts, (number, stratum), 1)
    if len(counts) < len(wanted):
        raise BadInput(f"{len(counts)} groups can't be divided into {', '.join(wanted)}; more groups are needed")
    names = list(wanted)
    caps = np.array([*list(wanted.values())[:-1], len(pool)], dtype=float)
    caps[-1] = len(pool) - caps[:-1].sum()
    lacks = caps[:, None] * (counts.sum(axis=0) / len(pool))[None, :]
    home = _by_size(counts, lacks, caps, rng.permutation(len(counts)))
    sizes = counts.sum(axis=1)
    for split in range(len(names)):
        held = np.bincount(home, minlength=len(names))
        if not held[split]:
            spare = np.flatnonzero(held[home] > 1)
            home[spare[np.argmin(sizes[spare])]] = split
    return {name: np.sort(pool[home[number] == split]) for split, name in enumerate(names)}


def _by_size(counts: NDArray[np.float64], lacks: NDArray[np.float64], caps: NDArray[np.float64], order: Rows) -> Rows:
    """Return for each group the number of the split that it goes to; the last split takes what fits nowhere else."""
    sizes = counts.sum(axis=1)
    room = caps.copy()
    room[-1] = np.inf
    home = np.zeros(len(counts), dtype=np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        score = (lacks @ counts[group]) / np.maximum(caps, 1) / sizes[group]
        score[room < sizes[group]] = -np.inf
        best = int(np.argmax(score))
        home[group] = best
        room[best] -= sizes[group]
        lacks[best] -= counts[group]
    return home


def _check(splits: dict[str, Rows], items: Items) -> None:
    for name in ("calibrate", "select", "certify"):
        if not len(splits.get(name, ())):
            raise BadInput(f"no items are left to {name}; give more data, or name some of them {name}")
    if items.groups is None or items.names is None:
        return
    proof = set(items.groups[splits["certify"]].tolist())
    for name, rows in splits.items():
        torn = proof & set(items.groups[rows].tolist()) if name != "certify" else set()
        if torn:
            raise BadInput(
                f"the group {min(map(str, torn))!r} has items in {name} and in certify; keep each group in one split"
            )
