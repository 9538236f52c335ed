"""Runs a certificate again: does the bundle still answer as was proven, here and now?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, CertificateBroken
from trimtab.core.values import Goal, NoWorse, Ratio, Task, Variant
from trimtab.data.batches import labels as labels_of
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.meters.judge import judge
from trimtab.meters.predict import answers, predict
from trimtab.runtimes.session import open_session
from trimtab.serving.bundle import Manifest, bundled_variant, read_manifest
from trimtab.serving.evidence import read_evidence
from trimtab.workbench.compare import timing_inputs
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


def verify(
    bundle: Path, data: Any, folder: Path, request: DataRequest | None = None, original: Variant | None = None
) -> Verification:
    """Answer the certified items again and test the claim; with the original model, time it again as well.

    Items are recognised by their content, wherever they are in the data given. The certificate holds when the items of
    the proof are there, the claim is proven on them again, and, with the original, the bundle is not slower than it.
    """
    manifest = read_manifest(bundle)
    certificate = manifest.certificate
    if certificate is None:
        raise BadInput(f"{bundle} has no certificate: it was made for speed only, there is nothing to verify")
    variant = bundled_variant(bundle, manifest)
    request = request or DataRequest()
    if request.preprocess is None and manifest.preprocessing:
        request = replace(request, preprocess=manifest.preprocessing)
    task = open_task(data, variant.model, folder, request)
    task = replace(
        task, threshold=manifest.threshold, metric=certificate.no_worse.metric if task.labelled else task.metric
    )
    goal = Goal(max_drop=certificate.no_worse.max_drop, error=certificate.no_worse.error)
    found, known = _again(bundle, variant, task, goal)
    missing = max(0, certificate.no_worse.items - known)
    ratio = None if original is None else _timed(variant, original, task, goal, folder)
    reason = _reason(found, missing, ratio, certificate.no_worse.items)
    return Verification(
        manifest=manifest, found=found, items_missing=missing, ratio=ratio, holds=not reason, reason=reason
    )


def insist(verification: Verification) -> Verification:
    """Return the verification, or raise `CertificateBroken` with the reason when it does not hold."""
    if not verification.holds:
        raise CertificateBroken(f"the certificate does not hold here: {verification.reason}")
    return verification


def _again(bundle: Path, variant: Variant, task: Task, goal: Goal) -> tuple[NoWorse, int]:
    """Answer the items that the evidence knows and judge the answers; return also how many items that were."""
    evidence = read_evidence(bundle)
    best: tuple[NoWorse, int] | None = None
    for split in task.splits:
        rows, original = evidence.answers_to(split)
        if not len(rows) or (best is not None and best[1] >= len(rows)):
            continue
        with open_session(variant) as session:
            outputs = predict(session, task, split, goal.workload)[rows]
        given = labels_of(split)
        labels = answers(task, original) if given is None else given[rows]
        groupless = replace(split, groups=None) if len(rows) < len(split) else split
        found = judge(task, groupless, labels, original, outputs, goal=goal, names=(variant.key, "the original"))
        best = (found, len(rows))
    if best is None:
        raise BadInput(
            "none of the certified items is in the data given: give the data that the model was certified on"
        )
    return best


def _timed(variant: Variant, original: Variant, task: Task, goal: Goal, folder: Path) -> Ratio:
    variants = [original, variant]
    inputs = [timing_inputs(v, task, goal.workload, 0) for v in variants]
    plan = TimingPlan(folder=folder / "timing", seconds=20.0, margin=goal.margin)
    return time_finally(variants, inputs, plan).ratio(1, 0)


def _reason(found: NoWorse, missing: int, ratio: Ratio | None, items: int) -> str:
    if missing:
        return f"{missing} of the {items} certified items are not in the data given"
    if not found.proven:
        return found.reason
    if ratio is not None and ratio.verdict == "slower":
        return f"on this machine it takes {ratio.value:.2f}× the time of the original"
    return ""
