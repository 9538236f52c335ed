"""Runs a certificate again: does the bundle still answer as was proven, here and now?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, CertificateBroken
from trimtab.core.protocols import Array
from trimtab.core.values import Goal, NoWorse, Ratio, Task, Variant, Workload
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.feed import timing_inputs
from trimtab.meters.judge import judge_items
from trimtab.meters.predict import answers, predict
from trimtab.runtimes.session import open_session
from trimtab.serving.bundle import Manifest, bundled_variant, check_code, read_manifest
from trimtab.serving.evidence import Evidence, read_evidence
from trimtab.workbench.proof import of_itself
from trimtab.workbench.timing import TimingPlan, time_finally


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a certificate said and what was found when it was run again."""

    manifest: Manifest
    found: NoWorse
    items_missing: int
    ratio: Ratio | None
    holds: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a certificate is run again.

    `original` is timed against the bundle as well; `request` says how the data is read where it differs from what
    the bundle says itself; `trust_pickle` is for bundles whose model runs code when it is loaded.
    """

    original: Variant | None = None
    request: DataRequest = field(default_factory=DataRequest)
    trust_pickle: bool = False


def verify(bundle: Path, data: Any, folder: Path, check: Check | None = None) -> Verification:
    """Answer the certified items again and test the claim; with the original model, time it again as well.

    Items are recognised by their content, wherever they are in the data given. The certificate holds when the items of
    the proof are there, the claim is proven on them again, and, with the original, the bundle is not slower than it.

    Args:
        bundle: the folder that `trimtab optimize` wrote.
        data: what `--data` takes.
        folder: where the data may be kept.
        check: what else to look at.
    """
    check = check or Check()
    manifest = read_manifest(bundle)
    certificate = manifest.certificate
    if certificate is None:
        raise BadInput(
            f"{bundle} has no certificate (trimtab apply made it, or it is for speed only): there is nothing to verify"
        )
    check_code(manifest, check.trust_pickle)
    evidence = read_evidence(bundle)
    variant = bundled_variant(bundle, manifest, check.trust_pickle)
    items = open_task(data, variant.model, folder, _request(manifest, check), divide=False)
    task = _same_task(items, manifest, evidence)
    workload = manifest.measurement.workload if manifest.measurement is not None else Workload()
    goal = Goal(max_drop=certificate.no_worse.max_drop, error=certificate.no_worse.error, workload=workload)
    found, missing = _again(variant, task, goal, evidence)
    found = of_itself(found) if variant.key == certificate.original else found
    ratio = None if check.original is None else _timed(variant, check.original, task, goal, folder)
    gone = f"{missing} of the {len(evidence.digests)} certified items are not in the data given{_labelled(evidence)}"
    reason = gone if missing else _reason(found, ratio)
    return Verification(
        manifest=manifest, found=found, items_missing=missing, ratio=ratio, holds=not reason, reason=reason
    )


def insist(verification: Verification) -> Verification:
    """Return the verification, or raise `CertificateBroken` with the reason when it does not hold."""
    if not verification.holds:
        raise CertificateBroken(f"the certificate does not hold here: {verification.reason}")
    return verification


def _request(manifest: Manifest, check: Check) -> DataRequest:
    """Return how the data is read: as the bundle says, where nothing else is asked for."""
    asked, certified = check.request, manifest.task
    return replace(
        asked,
        preprocess=asked.preprocess if asked.preprocess is not None else certified.preprocessing or None,
        kind=asked.kind or certified.kind,
        output=asked.output or certified.output,
        max_drop=None,
    )


def _same_task(task: Task, manifest: Manifest, evidence: Evidence) -> Task:
    """Return the task with the answers read as they were certified; labels are left out where there were none."""
    certified = manifest.task
    if evidence.labelled and not task.labelled:
        raise BadInput(f"the certificate is about {certified.metric} and the data has no labels: give them as well")
    if certified.classes and task.labelled and task.classes != certified.classes:
        raise BadInput(
            f"the data names the classes {', '.join(task.classes[:5])} …, the certified ones are "
            f"{', '.join(certified.classes[:5])} …: give their order with --labels"
        )
    splits = task.splits if evidence.labelled else tuple(replace(split, labels=None) for split in task.splits)
    return replace(certified, splits=splits, preprocessing=task.preprocessing)


def _again(variant: Variant, task: Task, goal: Goal, evidence: Evidence) -> tuple[NoWorse, int]:
    """Answer the certified items and judge the answers; return also how many of the items were not found."""
    places = evidence.places(task.splits)
    kept = places[:, 0] >= 0
    if not kept.any():
        raise BadInput(
            f"none of the certified items is in the data given{_labelled(evidence)}: give the data that the model was "
            "certified on"
        )
    places = places[kept]
    used = set(places[:, 0].tolist())
    with open_session(variant) as session:
        outputs = {number: predict(session, task, task.splits[number], goal.workload) for number in used}
    original = evidence.outputs[kept]
    known = {number: labels_of(task.splits[number]) for number in used}
    groups = {number: groups_of(task.splits[number]) for number in used}
    labels = _picked(known, places)
    found = judge_items(
        task,
        _picked(groups, places),
        answers(task, original) if labels is None else labels,
        original,
        np.stack([outputs[split][row] for split, row in places.tolist()]),
        goal=goal,
        names=(variant.key, "the original"),
    )
    return found, int((~kept).sum())


def _picked(arrays: Mapping[int, Array | None], places: Array) -> Array | None:
    """Return the entries at (split, row), None where a split has none."""
    present = {number: array for number, array in arrays.items() if array is not None}
    if len(present) < len(arrays):
        return None
    return np.array([present[split][row] for split, row in places.tolist()])


def _timed(variant: Variant, original: Variant, task: Task, goal: Goal, folder: Path) -> Ratio:
    variants = [original, variant]
    task = replace(task, splits=(replace(task.splits[0], name="select"),))  # nothing is searched: any items will do
    inputs = [timing_inputs(v, task, goal.workload) for v in variants]
    plan = TimingPlan(folder=folder / "timing", seconds=20.0, margin=goal.margin)
    return time_finally(variants, inputs, plan).ratio(1, 0)


def _labelled(evidence: Evidence) -> str:
    return " with the labels that they had" if evidence.labelled else ""


def _reason(found: NoWorse, ratio: Ratio | None) -> str:
    if not found.proven:
        return found.reason
    if ratio is not None and ratio.verdict == "slower":
        return f"on this machine it takes {ratio.value:.2f}× the time of the original"
    return ""
