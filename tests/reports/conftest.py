"""A whole result with known numbers, as a search over a classifier of digits would return it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.values import (
    Certificate,
    Comparison,
    Goal,
    Limit,
    Machine,
    Measurement,
    Model,
    NoWorse,
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

MACHINE = Machine(
    cpu="AMD EPYC 9R14",
    flags=("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "sse4_2"),
    cores=2,
    memory_bytes=24 * 10**9,
    hypervisor="KVM",
    governor=None,
    system="Linux 6.8",
    python="3.11.9",
    versions=options(onnxruntime="1.31.0", openvino="2026.4.0", numpy="2.4.0", trimtab="0.1.0"),
    load_average=1.42,
    pressure=0.07,
    steal_s=0.4,
)

SIGNATURE = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 1, 28, 28)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
)


def make_variant(name: str, runtime: str, *steps: Step, format: str = "onnx") -> Variant:
    model = Model(format=format, path=Path(f"/models/{name}.onnx"), digest=content_digest(name), signature=SIGNATURE)
    return Variant(model=model, settings=Settings(runtime=runtime, threads=2), steps=steps)


def confusion(matrix: np.ndarray) -> list[Reading]:
    return [
        Reading(
            name="confusion_matrix", value=float(matrix[i, j]), provenance="counted", place=f"{DIGITS[i]}→{DIGITS[j]}"
        )
        for i, j in zip(*np.nonzero(matrix), strict=True)
    ]


def matrix(errors: dict[tuple[int, int], int], per_class: int = 120) -> np.ndarray:
    counts = np.eye(10, dtype=int) * per_class
    for (true, predicted), number in errors.items():
        counts[true, predicted] += number
        counts[true, true] -= number
    return counts


ORIGINAL_ERRORS = {(4, 9): 6, (9, 4): 3, (3, 5): 4, (7, 2): 2, (8, 3): 3}
WINNER_ERRORS = {(4, 9): 8, (9, 4): 2, (3, 5): 4, (7, 2): 2, (8, 3): 2, (5, 3): 1}


def make_measurement(
    variant: Variant,
    latency: float,
    size: float,
    errors: dict[tuple[int, int], int],
    *,
    full: bool = True,
    seed: int = 0,
) -> Measurement:
    counts = matrix(errors)
    accuracy = counts.trace() / counts.sum()
    wide = 0.02 if full else 0.08
    readings = [
        Reading(
            name="accuracy",
            value=accuracy,
            direction="higher",
            low=accuracy - 0.007,
            high=min(accuracy + 0.006, 1),
            samples=1200,
        ),
        Reading(
            name="f1_macro",
            value=accuracy - 0.001,
            direction="higher",
            low=accuracy - 0.008,
            high=accuracy + 0.005,
            samples=1200,
        ),
        Reading(
            name="latency_p50",
            value=latency,
            unit="s",
            direction="lower",
            low=latency * (1 - wide),
            high=latency * (1 + wide),
            samples=900,
        ),
        Reading(
            name="latency_mean",
            value=latency * 1.04,
            unit="s",
            direction="lower",
            low=latency * (1.04 - wide),
            high=latency * (1.04 + wide),
            samples=900,
        ),
        Reading(
            name="latency_p90",
            value=latency * 1.2,
            unit="s",
            direction="lower",
            high=latency * 1.3,
            low=latency * 1.15,
            samples=900,
        ),
        Reading(name="bytes", value=size, unit="bytes", direction="lower", provenance="counted"),
        Reading(name="parameters", value=421_642, direction="lower", provenance="counted"),
        Reading(name="macs", value=52_400_000, unit="MAC", direction="lower", provenance="counted"),
    ]
    traces: list[Trace] = []
    if full:
        rng = np.random.default_rng(seed)
        samples = latency * (0.97 + rng.gamma(1.2, 0.03, 400))
        samples[:4] *= 1.9
        traces = [Trace(name="latency", times=tuple(np.arange(400.0)), values=tuple(samples.tolist()), unit="s")]
        readings += confusion(counts)
        readings += [
            Reading(
                name="recall",
                value=counts[i, i] / counts[i].sum(),
                direction="higher",
                place=name,
                low=counts[i, i] / counts[i].sum() - 0.04,
                high=min(counts[i, i] / counts[i].sum() + 0.03, 1),
            )
            for i, name in enumerate(DIGITS)
        ]
        readings += [
            Reading(
                name="latency_p99",
                value=None,
                unit="s",
                direction="lower",
                provenance="unavailable",
                samples=400,
                scope="400 samples, 662 needed",
            ),
            Reading(name="load_time", value=0.081, unit="s", direction="lower", low=0.07, high=0.1, samples=5),
            Reading(
                name="first_call",
                value=latency * 6,
                unit="s",
                direction="lower",
                low=latency * 5,
                high=latency * 8,
                samples=5,
            ),
            Reading(
                name="peak_memory",
                value=9.1e7 + size * 3,
                unit="bytes",
                direction="lower",
                provenance="modelled",
                low=9e7 + size * 2.5,
                high=9.3e7 + size * 3.5,
            ),
        ]
        readings += [
            Reading(
                name="throughput",
                value=(rate := batch / (latency * (0.45 + 0.55 * batch))),
                unit="items/s",
                direction="higher",
                low=rate * 0.96,
                high=rate * 1.03,
                place=f"batch={batch}",
            )
            for batch in (1, 2, 4, 8, 16, 32)
        ]
    return Measurement(
        variant=variant,
        task="f00d",
        workload=Workload(),
        readings=tuple(readings),
        traces=tuple(traces),
        machine=MACHINE,
        time=TIME,
    )


def key_of(name: str) -> str:
    """Return what ratios and proofs call a variant: its key."""
    known = {"as given": GIVEN, "best untouched": UNTOUCHED, NAME: WINNER, "bf16 on openvino": BF16}
    return {**known, "dynamic-int8 on onnxruntime": DYNAMIC}[name].key


def make_ratio(
    variant: str, baseline: str, value: float, half: float = 0.03, verdict: str = "faster", **more: object
) -> Ratio:
    fields = {
        "reading": "latency_p50",
        "level": 0.95,
        "margin": 0.03,
        "blocks": 240,
        "processes": 5,
        "noise": 1.12,
        "variant": key_of(variant),
        "baseline": key_of(baseline),
        "value": value,
        "low": value * (1 - half),
        "high": value * (1 + half),
        "verdict": verdict,
    }
    return Ratio(**{**fields, **more})


def make_proof(**changes: object) -> NoWorse:
    fields = {
        "metric": "accuracy",
        "variant": WINNER.key,
        "baseline": GIVEN.key,
        "max_drop": 0.01,
        "error": 0.05,
        "method": "Tango's score test, one-sided",
        "items": 1200,
        "groups": 1200,
        "difference": -1 / 1200,
        "low": -0.0042,
        "high": 0.0021,
        "better": 3,
        "worse": 4,
        "flips": 9,
        "proven": True,
        "harmed": (
            Reading(name="recall", value=-0.0167, low=-0.035, high=-0.002, direction="higher", place="4", samples=120),
        ),
    }
    return NoWorse(**{**fields, **changes})


GIVEN = make_variant("mnist", "onnxruntime")
UNTOUCHED = make_variant("mnist", "openvino")
WINNER = make_variant(
    "int8",
    "openvino",
    Step(technique="export-openvino"),
    Step(technique="static-int8", options=options(method="percentile", per_channel=True)),
)
BF16 = make_variant("bf16", "openvino", Step(technique="bf16"))
DYNAMIC = make_variant("dynamic", "onnxruntime", Step(technique="dynamic-int8"))
NNCF = make_variant("nncf", "openvino", Step(technique="nncf-int8"))
NAME = "static-int8 on openvino"


def make_trial(name: str, variant: Variant | None, state: str, reason: str, **more: object) -> Trial:
    settings = variant.settings if variant else Settings(runtime="openvino", precision="f16")
    steps = variant.steps if variant else (Step(technique="simplify"),)
    return Trial(name=name, steps=steps, settings=settings, variant=variant, state=state, reason=reason, **more)


def make_result() -> Result:
    given = make_measurement(GIVEN, 2.9e-3, 1.69e6, ORIGINAL_ERRORS, seed=1)
    untouched = make_measurement(UNTOUCHED, 1.8e-3, 1.69e6, ORIGINAL_ERRORS, seed=2)
    winner = make_measurement(WINNER, 1.0e-3, 0.47e6, WINNER_ERRORS, seed=3)
    bf16 = make_measurement(BF16, 1.3e-3, 0.85e6, ORIGINAL_ERRORS, seed=4)
    proof = make_proof()
    ratios = (
        make_ratio(NAME, "as given", 1 / 2.9),
        make_ratio(NAME, "best untouched", 1 / 1.8),
        make_ratio("best untouched", "as given", 1.8 / 2.9),
        make_ratio("bf16 on openvino", "as given", 1.3 / 2.9),
        make_ratio("bf16 on openvino", "best untouched", 1.3 / 1.8),
    )
    trials = (
        make_trial(
            NAME,
            WINNER,
            "proven",
            "the fastest proven variant",
            measurement=winner,
            quality=proof,
            seconds=21.4,
            log=Path("fast/trials/03-static-int8/log.txt"),
            screening=make_ratio(NAME, "best untouched", 1 / 1.78, 0.06),
        ),
        make_trial(
            "bf16 on openvino",
            BF16,
            "proven",
            "proven, but slower than the winner",
            measurement=bf16,
            seconds=6.0,
            quality=make_proof(
                variant=BF16.key,
                difference=0.0,
                low=-0.0022,
                high=0.0022,
                flips=0,
                better=0,
                worse=0,
                harmed=(),
            ),
            log=Path("fast/trials/01-bf16/log.txt"),
        ),
        make_trial(
            "nncf-int8 on openvino",
            NNCF,
            "unproven",
            "not proven: about 3,092 items would decide, there are 1,200",
            seconds=31.0,
            measurement=make_measurement(NNCF, 0.94e-3, 0.45e6, {**WINNER_ERRORS, (9, 7): 9}, full=False),
            quality=make_proof(variant=NNCF.key, proven=False, needed=3092),
            log=Path("fast/trials/04-nncf-int8/log.txt"),
        ),
        make_trial(
            "dynamic-int8 on onnxruntime",
            DYNAMIC,
            "dropped",
            "slower than the best untouched variant: 0.62× (0.58–0.66)",
            seconds=3.1,
            measurement=make_measurement(DYNAMIC, 3.4e-3, 0.52e6, ORIGINAL_ERRORS, full=False),
            screening=make_ratio("dynamic-int8 on onnxruntime", "best untouched", 1 / 0.62, 0.06, "slower"),
            log=Path("fast/trials/02-dynamic-int8/log.txt"),
        ),
        make_trial(
            "simplify on openvino, f16",
            None,
            "failed",
            "the worker took longer than its limit of 2.9 s for one call",
            seconds=3.0,
            log=Path("fast/trials/05-simplify/log.txt"),
        ),
    )
    return Result(
        goal=Goal(limits=(Limit(reading="bytes", relation="<=", bound=5e6),)),
        task=Task(classes=DIGITS, metric="accuracy", digest="f00d"),
        verdict="static-int8 on openvino is 2.90× faster (2.82–2.99) than the model as given and 1.80× faster "
        "(1.75–1.86) than the best untouched variant; proven with 95 % confidence to lose at most 1.0 pt of accuracy "
        "(lost 0.08 pt on 1,200 items).",
        as_given=make_trial("as given", GIVEN, "kept", "", measurement=given),
        untouched=make_trial("best untouched", UNTOUCHED, "kept", "", measurement=untouched),
        trials=trials,
        comparison=Comparison(
            measurements=(given, untouched, winner, bf16),
            ratios=ratios,
            quality=(proof,),
            self_test=make_ratio("as given", "as given", 1.004, 0.011, "equivalent"),
        ),
        winner=NAME,
        certificate=Certificate(
            claim="static-int8 on openvino loses at most 1.0 pt of accuracy",
            no_worse=proof,
            ratios=ratios[:2],
            data="9f" * 16,
            original="3b" * 16,
            looks=1,
            seed=0,
            machine=MACHINE,
            command="trimtab verify fast/ --data val/",
            time=TIME,
        ),
        machine=MACHINE,
        spent=(
            ("measuring baselines", 14.2),
            ("making candidates", 31.7),
            ("screening", 12.4),
            ("proving", 6.8),
            ("final timing", 41.0),
        ),
        command="trimtab optimize mnist.onnx --data val/ --minimize latency --max-drop 1pt --output fast/",
        version="0.1.0",
    )


@pytest.fixture(scope="session")
def result() -> Result:
    return make_result()


@pytest.fixture(scope="session")
def speed_only(result: Result) -> Result:
    """The same search without any data: nothing is known about quality."""

    def blind(measurement: Measurement | None) -> Measurement | None:
        if measurement is None:
            return None
        quality = ("accuracy", "f1_macro", "recall", "confusion_matrix")
        return replace(measurement, readings=tuple(r for r in measurement.readings if r.name not in quality))

    def unseen(trial: Trial) -> Trial:
        return replace(trial, measurement=blind(trial.measurement), quality=None)

    comparison = replace(
        result.comparison, quality=(), measurements=tuple(blind(m) for m in result.comparison.measurements)
    )
    return replace(
        result,
        goal=replace(result.goal, max_drop=None),
        task=Task(),
        certificate=None,
        comparison=comparison,
        as_given=unseen(result.as_given),
        untouched=unseen(result.untouched),
        trials=tuple(map(unseen, result.trials)),
        verdict="static-int8 on openvino is 2.90× faster (2.82–2.99) than the model as given; "
        "speed only: nothing is proven about its quality.",
        warnings=("There was no data: speed only, nothing is proven about the answers of the winner.",),
    )


@pytest.fixture(scope="session")
def unmet(result: Result) -> Result:
    """A search in which no variant kept the goal."""
    trials = tuple(replace(t, state="unproven") if t.state == "proven" else t for t in result.trials)
    return replace(
        result,
        winner=None,
        certificate=None,
        trials=trials,
        verdict="No variant met the goal: 1,200 items can't decide. The model as given remains the one to use.",
    )
