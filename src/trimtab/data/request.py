"""What a user says about the data beyond where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.core.values import Kind
from trimtab.data.preprocess import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """How data is prepared, labelled and judged; everything left at None is found out or takes its default.

    `labels` is a file with one class name per line, in the order of the model's outputs. `groups` names the array
    or column that says which items belong together (else "groups" or "group"). `positive` is the class of interest of
    a binary task, by name or number. `costs` is money per (miss, false alarm). `max_drop` (in the metric's unit) and
    `error` (the risk of a wrong certificate) are used to say, before anything runs, whether the items can prove that
    drop at all. `train` is the source of the items to train on: another one, or the data itself where that names
    some of its items train.
    """

    preprocess: Preprocess = None
    labels: Path | None = None
    groups: str | None = None
    output: str | None = None
    kind: Kind | None = None
    metric: str | None = None
    positive: str | int | None = None
    threshold: float | None = None
    costs: tuple[float, float] | None = None
    max_drop: float | None = 0.01
    error: float = 0.05
    seed: int = 0
    train: Any = None
