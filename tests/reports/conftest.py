"""A whole result with known numbers, in the form that meters, judge and search return theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import (
    Certificate,
    Comparison,
    Direction,
    Goal,
    Limit,
    Machine,
    Measurement,
    Model,
    NoWorse,
    Provenance,
    Ratio,
    Reading,
    Result,
    Settings,
    Signature,
    Step,
    Task,
    TensorSpec,
    Trace,
    Trial,
    Variant,
    Workload,
    content_digest,
    options,
)

DIGITS = tuple("0123456789")
TIME = "2026-11-20T10:15:00+00:00"
NAME = "static-int8 on openvino"
ORIGINAL_ERRORS = {(4, 9): 6, (9, 4): 3, (3, 5): 4, (7, 2): 2, (8, 3): 3}
WINNER_ERRORS = {(4, 9): 8, (9, 4): 2, (3, 5): 4, (7, 2): 2, (8, 3): 2, (5, 3): 1}
Errors = dict[tuple[int, int], int]

MACHINE = Machine(
    cpu="Example CPU 9", flags=("avx2", "avx512f", "avx512_vnni", "fpu"), cores=2, memory_bytes=2 * 10**10,
    hypervisor="KVM", governor=None, system="Linux 6.8", python="3.11.9", load_average=1.42, pressure=0.07, steal_s=0.4,
    versions=options(onnxruntime="1.31.0", openvino="2026.4.0"),
)  # fmt: skip

SIGNATURE = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 28, 28)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
)


def make_variant(name: str, runtime: str, *steps: Step) -> Variant:
    model = Model(format="onnx", path=Path(f"/models/{name}.onnx"), digest=content_digest(name), signature=SIGNATURE)
    return Variant(model=model, settings=Settings(runtime=runtime, threads=2), steps=steps)


GIVEN = make_variant("mnist", "onnxruntime")
UNTOUCHED = make_variant("mnist", "openvino")
PERCENTILE = Step(technique="static-int8", options=options(method="percentile", per_channel=True))
WINNER = make_variant("int8", "openvino", Step(technique="export-openvino"), PERCENTILE)
BF16 = make_variant("bf16", "openvino", Step(technique="bf16"))
DYNAMIC = make_variant("dynamic", "onnxruntime", Step(technique="dynamic-int8"))
NNCF = make_variant("nncf", "openvino", Step(technique="nncf-int8"))


def read(
    name: str, value: float | None, low: float | None = None, high: float | None = None, *, unit: str = "1",
    way: Direction = "lower", provenance: Provenance = "measured", **more: object,
) -> Reading:  # fmt: skip
    return Reading(name=name, value=value, low=low, high=high, unit=unit, direction=way, provenance=provenance, **more)


def counts_of(errors: Errors, per_class: int = 120) -> np.ndarray:
    counts = np.eye(10, dtype=int) * per_class
    for (true, predicted), number in errors.items():
        counts[true, predicted] += number
        counts[true, true] -= number
    return counts


def quality(errors: Errors) -> list[Reading]:
    """Accuracy, recall of each class and the confusion matrix of 1,200 items."""
    counts = counts_of(errors)
    right = counts.trace() / counts.sum()
    readings = [read("accuracy", right, right - 0.007, right + 0.006, way="higher", samples=1200)]
    for row, name in enumerate(DIGITS):
        recall = counts[row, row] / counts[row].sum()
        readings.append(read("recall", recall, recall - 0.04, min(recall + 0.03, 1.0), way="higher", place=name))
    for row, column in zip(*np.nonzero(counts), strict=True):
        place = f"{DIGITS[row]}→{DIGITS[column]}"
        readings.append(read("confusion_matrix", float(counts[row, column]), way="none", place=place))
    return readings


def static(size: float) -> list[Reading]:
    """What a search reads of every candidate."""
    return [
        read("bytes", size, unit="B", provenance="counted"),
        read("parameters", 421_642.0, provenance="counted"),
        read("macs", 52_400_000.0, provenance="counted"),
    ]


def speed(latency: float, size: float) -> list[Reading]:
    """What is read of finalists: p99 is unavailable, peak memory modelled."""
    return [
        read("latency_p50", latency, latency * 0.98, latency * 1.02, unit="s", samples=900),
        read("latency_mean", latency * 1.04, latency * 1.02, latency * 1.06, unit="s", samples=900),
        read("latency_p90", latency * 1.2, latency * 1.15, latency * 1.2, unit="s", samples=900, level=0.99),
        read("latency_p99", None, unit="s", provenance="unavailable", samples=400, scope="400 samples, 662 needed"),
        read("load_time", 0.081, 0.07, 0.1, unit="s", samples=5),
        read("peak_memory", 9.1e7 + size * 3, 9e7 + size * 2, 9.3e7 + size * 4, unit="B", provenance="modelled"),
        *(
            read("throughput", rate, rate * 0.96, rate * 1.03, unit="1/s", way="higher", place=f"batch={batch}")
            for batch in (1, 2, 4, 8, 16, 32)
            for rate in (batch / (latency * (0.45 + 0.55 * batch)),)
        ),
    ]


def measured(variant: Variant, readings: list[Reading], samples: np.ndarray | None = None) -> Measurement:
    values = () if samples is None else tuple(samples.tolist())
    trace = Trace(name="latency", times=tuple(float(index) for index in range(len(values))), values=values, unit="s")
    return Measurement(
        variant=variant, task="f00d", workload=Workload(), readings=tuple(readings), traces=(trace,) if values else (),
        machine=MACHINE, time=TIME,
    )  # fmt: skip


def final(variant: Variant, latency: float, size: float, errors: Errors, seed: int) -> Measurement:
    samples = latency * (0.97 + np.random.default_rng(seed).gamma(1.2, 0.03, 400))
    samples[:4] *= 1.9
    return measured(variant, [*static(size), *speed(latency, size), *quality(errors)], samples)


def make_ratio(variant: Variant, baseline: Variant, value: float, half: float = 0.03, verdict: str = "faster") -> Ratio:
    return Ratio(
        reading="latency", variant=variant.key, baseline=baseline.key, value=value, low=value * (1 - half),
        high=value * (1 + half), level=0.95, margin=0.03, verdict=verdict, blocks=240, processes=5, noise=1.12,
    )  # fmt: skip


def make_proof(variant: Variant = WINNER, **changes: object) -> NoWorse:
    harmed = (
        read("recall_change", -2 / 120, way="higher", place="4", scope="harmed beyond chance (p = 0.01), +0 −2"),
        read("recall_change", -1 / 120, way="higher", place="5", scope="not beyond chance (p = 0.6), +0 −1"),
    )
    fields = {
        "metric": "accuracy", "variant": variant.key, "baseline": GIVEN.key, "max_drop": 0.01, "error": 0.05,
        "method": "Tango's score test", "items": 1200, "groups": 1200, "difference": -1 / 1200, "low": -0.0042,
        "high": 0.0021, "better": 3, "worse": 4, "flips": 9, "proven": True, "harmed": harmed,
    }  # fmt: skip
    return NoWorse(**{**fields, **changes})


def make_trial(name: str, variant: Variant | None, state: str, reason: str = "", **more: object) -> Trial:
    settings = variant.settings if variant else Settings(runtime="openvino", precision="f16")
    steps = variant.steps if variant else (Step(technique="simplify"),)
    log = Path(f"fast/work/logs/{name.replace(' ', '_')}.log")
    return Trial(
        name=name, steps=steps, settings=settings, variant=variant, state=state, reason=reason, log=log, **more
    )


def make_trials() -> tuple[Trial, ...]:
    same = {"difference": 0.0, "low": -0.0022, "high": 0.0022, "flips": 0, "better": 0, "worse": 0, "harmed": ()}
    worse = {"difference": -0.0075, "low": -0.014, "high": -0.002, "proven": False, "needed": 3092}
    return (
        make_trial("as given on onnxruntime", GIVEN, "kept", measurement=measured(GIVEN, static(1.69e6))),
        make_trial("as given on openvino", UNTOUCHED, "kept", measurement=measured(UNTOUCHED, static(1.69e6)),
                   screening=make_ratio(UNTOUCHED, GIVEN, 0.6, 0.06), quality=make_proof(UNTOUCHED, **same)),
        make_trial(NAME, WINNER, "proven", measurement=measured(WINNER, static(0.47e6)), quality=make_proof(),
                   screening=make_ratio(WINNER, GIVEN, 0.36, 0.06), seconds=21.4),
        make_trial("bf16 on openvino", BF16, "proven", measurement=measured(BF16, static(0.85e6)), seconds=6.0,
                   screening=make_ratio(BF16, GIVEN, 0.44, 0.06), quality=make_proof(BF16, **same)),
        make_trial("nncf-int8 on openvino", NNCF, "unproven", "not proven on 1200 items: about 3,092 would decide",
                   measurement=measured(NNCF, static(0.45e6)), screening=make_ratio(NNCF, GIVEN, 0.33, 0.06),
                   quality=make_proof(NNCF, **worse), seconds=31.0),
        make_trial("dynamic-int8 on onnxruntime", DYNAMIC, "dropped", "about 3.3× the time of static-int8 on openvino",
                   measurement=measured(DYNAMIC, static(0.52e6)), seconds=3.1,
                   screening=make_ratio(DYNAMIC, GIVEN, 1.17, 0.06, "slower")),
        make_trial("simplify on openvino, f16", None, "failed", "the worker took longer than its limit of 2.9 s",
                   seconds=3.0),
    )  # fmt: skip


def make_result() -> Result:
    trials, proof = make_trials(), make_proof()
    ratios = (
        make_ratio(UNTOUCHED, GIVEN, 1.8 / 2.9), make_ratio(WINNER, GIVEN, 1 / 2.9), make_ratio(BF16, GIVEN, 1.3 / 2.9),
        make_ratio(WINNER, UNTOUCHED, 1 / 1.8), make_ratio(BF16, UNTOUCHED, 1.3 / 1.8),
    )  # fmt: skip
    comparison = Comparison(
        measurements=(
            final(GIVEN, 2.9e-3, 1.69e6, ORIGINAL_ERRORS, 1), final(UNTOUCHED, 1.8e-3, 1.69e6, ORIGINAL_ERRORS, 2),
            final(WINNER, 1.0e-3, 0.47e6, WINNER_ERRORS, 3), final(BF16, 1.3e-3, 0.85e6, ORIGINAL_ERRORS, 4),
        ),
        ratios=ratios, quality=(proof,), self_test=make_ratio(UNTOUCHED, UNTOUCHED, 1.004, 0.011, "equivalent"),
    )  # fmt: skip
    certificate = Certificate(
        claim="with 95 % confidence accuracy is at most 1 pt below the original's", no_worse=proof, ratios=ratios[:2],
        data="9f" * 16, original="3b" * 16, looks=1, seed=0, machine=MACHINE,
        command="trimtab verify fast/ --data val/", time=TIME,
    )  # fmt: skip
    spent = (("searching", 60.0), ("of it for the winner", 21.4), ("proving", 8.0), ("final timing", 32.0))
    return Result(
        goal=Goal(limits=(Limit(reading="bytes", relation="<=", bound=5e6),)),
        task=Task(classes=DIGITS, metric="accuracy", digest="f00d"), verdict=f"{NAME} is the one; it is proven.",
        as_given=trials[0], untouched=trials[1], trials=trials, comparison=comparison, winner=NAME,
        certificate=certificate, machine=MACHINE, spent=spent, version="0.1.0",
        command="trimtab optimize mnist.onnx --data val/ --max-drop 1pt --output fast/",
    )  # fmt: skip


@pytest.fixture(scope="session")
def result() -> Result:
    return make_result()


@pytest.fixture(scope="session")
def speed_only(result: Result) -> Result:
    """The same search without any data: nothing is known about quality."""

    def blind(measurement: Measurement) -> Measurement:
        unknown = ("accuracy", "recall", "confusion_matrix")
        return replace(measurement, readings=tuple(r for r in measurement.readings if r.name not in unknown))

    trials = tuple(replace(trial, quality=None) for trial in result.trials)
    seen = tuple(blind(measurement) for measurement in result.comparison.measurements)
    return replace(
        result, goal=replace(result.goal, max_drop=None), task=Task(), certificate=None, trials=trials,
        as_given=trials[0], untouched=trials[1], comparison=replace(result.comparison, quality=(), measurements=seen),
        verdict=f"{NAME} is faster; speed only: nothing is proven about its quality.",
    )  # fmt: skip


@pytest.fixture(scope="session")
def unmet(result: Result) -> Result:
    """A search in which no variant kept the goal."""
    trials = tuple(replace(t, state="unproven") if t.state == "proven" else t for t in result.trials)
    comparison = replace(result.comparison, measurements=result.comparison.measurements[:2])
    return replace(
        result, winner=None, certificate=None, trials=trials, comparison=comparison,
        verdict="No variant met the goal: 1,200 items can't decide. The model as given remains the one to use.",
    )  # fmt: skip
