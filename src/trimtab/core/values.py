"""The nouns of trimtab: frozen values that every room passes to the next.

Values hold numbers with their evidence and paths to files; they hold no live object, so each of them
can cross a process wall and be written to disk (see `core/codec.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Scalar = str | int | float | bool | None
"""What an option may hold: something that JSON can say and a person can type."""

Options = tuple[tuple[str, Scalar], ...]
"""Named options in the order of their names, so that equal options are equal values."""

Role = Literal["data", "state", "constant"]
Direction = Literal["lower", "higher", "none"]
Provenance = Literal["measured", "counted", "calibrated", "modelled", "assumed", "unavailable"]
Kind = Literal["classification", "binary", "regression", "embedding"]
SpeedVerdict = Literal["faster", "slower", "equivalent", "inconclusive"]


def options(given: Mapping[str, Scalar] | None = None, /, **more: Scalar) -> Options:
    """Return the given names and values as sorted options."""
    return tuple(sorted({**(given or {}), **more}.items()))


def content_digest(*parts: object) -> str:
    """Return the SHA-256 (first 16 bytes, hex) of the canonical JSON of the parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    `dtype` is numpy's name of it; a dimension that is free is its name or "?" when it has none.
    A state input is fed, from the second call on, with the output named in `fed_by`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    role: Role = "data"
    fed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The inputs and outputs of a model, in the order of the model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def data_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that a caller must feed."""
        return tuple(spec for spec in self.inputs if spec.role == "data")

    @property
    def states(self) -> tuple[TensorSpec, ...]:
        """The inputs that carry state from call to call."""
        return tuple(spec for spec in self.inputs if spec.role == "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained network on disk; its `digest` (of the content) is its name."""

    format: str
    path: Path
    digest: str
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is run. None leaves a choice to the runtime; batch size belongs to the `Workload`.

    With `static_shapes` a model of free dimensions is compiled for the shapes of a call, once for each that comes.
    """

    runtime: str
    device: str = "cpu"
    threads: int | None = None
    streams: int | None = None
    precision: str | None = None
    spinning: bool | None = None
    fusion: bool = True
    static_shapes: bool = False
    replicas: int = 1
    batching_window_s: float = 0.0
    extra: Options = ()

    def label(self) -> str:
        """Return the settings in a few words, without what is left at its default."""
        words = [self.runtime]
        if self.threads is not None:
            words.append(f"{self.threads} thread" + "s" * (self.threads != 1))
        if self.streams is not None:
            words.append(f"{self.streams} stream" + "s" * (self.streams != 1))
        if self.precision is not None:
            words.append(self.precision)
        if self.spinning is not None:
            words.append("spinning" if self.spinning else "no spinning")
        if not self.fusion:
            words.append("no fusion")
        if self.static_shapes:
            words.append("static shapes")
        words.extend(f"{name}={value}" for name, value in self.extra)
        return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One technique that was applied, with its options and seed: enough to do it again."""

    technique: str
    options: Options = ()
    seed: int = 0

    def label(self) -> str:
        """Return the step as a person would type it: without the options that are at their defaults."""
        from trimtab.core.plugins import telling  # plug-ins are made of these values

        shown = ", ".join(f"{name}={_counted(value)}" for name, value in telling(self.technique, self.options))
        return f"{self.technique}({shown})" if shown else self.technique


def _counted(value: Scalar) -> Scalar:
    """Return names separated by | as their number: a label is for reading, the options hold them all."""
    return f"{value.count('|') + 1} names" if isinstance(value, str) and "|" in value else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The one thing that flows: a model, how it is run, and what was done to it."""

    model: Model
    settings: Settings
    steps: tuple[Step, ...] = ()
    absorbed: tuple[Step, ...] = ()

    @property
    def key(self) -> str:
        """The name of this variant by its content; equal keys are the same weights, fed and run the same way."""
        how = (self.model.signature, self.settings, self.steps, self.absorbed)
        return content_digest(self.model.format, self.model.digest, *map(repr, how))

    def label(self) -> str:
        """Return the variant in a few words: its steps, then its settings."""
        steps = " → ".join(step.label() for step in self.steps) or "as given"
        return f"{steps} on {self.settings.label()}"

    def on(self, settings: Settings) -> Variant:
        """Return the same model run with other settings."""
        return replace(self, settings=settings)

    def after(self, model: Model, step: Step) -> Variant:
        """Return the variant that `step` made of this one."""
        return replace(self, model=model, steps=(*self.steps, step))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """A memory-mapped `.npy` array, one row per item. `name` is the model input it feeds."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Items of one purpose. `rows` are the items' numbers in the user's data; `groups` the unit to resample.

    `raw` are a few of the items before any step, where much is done once: texts, images. They are timed, no more.
    """

    name: str
    inputs: tuple[ArrayFile, ...]
    rows: ArrayFile
    labels: ArrayFile | None = None
    groups: ArrayFile | None = None
    digest: str = ""
    raw: ArrayFile | None = None

    def __len__(self) -> int:
        return self.rows.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What "good" means: data by purpose, how it is prepared, and the metric to protect.

    Splits are named train, calibrate, select and certify. A task without splits can only be timed.
    Without labels the answers of the original model stand in for them (agreement).
    `threshold` and `positive` are for binary tasks; `costs` is money per (miss, false alarm).
    `output` is the model output that holds the answer, None for the only one. `logits` says whether a binary
    model answers logits or probabilities, None until its answers have been seen (see `meters/predict.py`).
    """

    kind: Kind = "classification"
    splits: tuple[Split, ...] = ()
    preprocessing: tuple[Step, ...] = ()
    classes: tuple[str, ...] = ()
    metric: str = "accuracy"
    output: str | None = None
    positive: int = 1
    threshold: float | None = None
    logits: bool | None = None
    costs: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    digest: str = ""

    def split(self, name: str) -> Split | None:
        """Return the split of that name, or None."""
        return next((split for split in self.splits if split.name == name), None)

    @property
    def labelled(self) -> bool:
        """Whether the items carry labels."""
        return bool(self.splits) and all(split.labels is not None for split in self.splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of the model: items a call, sizes of free dimensions by name, calls at a time, calls a second.

    So far every call is made when the one before it has ended: the last two are for load tests to come.
    """

    batch: int = 1
    lengths: tuple[tuple[str, int], ...] = ()
    concurrency: int = 1
    arrival_rate_hz: float | None = None

    def shapes(self, signature: Signature) -> dict[str, tuple[int | str, ...]]:
        """Return the shape of every input under this workload, by name.

        A free first dimension of a data input is the batch, as is every other dimension of that name. The rest come
        from `lengths`, by the dimension's name or, for one without a name, by "input:axis"; the others stay free.
        """
        firsts = [spec.shape[0] for spec in signature.data_inputs if spec.shape]
        known = {name: self.batch for name in firsts if isinstance(name, str) and name != "?"} | dict(self.lengths)
        return {
            spec.name: tuple(self._size(spec, axis, known) for axis in range(len(spec.shape)))
            for spec in signature.inputs
        }

    def _size(self, spec: TensorSpec, axis: int, known: Mapping[str, int]) -> int | str:
        size = spec.shape[axis]
        if isinstance(size, int):
            return size
        unnamed: int | str = self.batch if axis == 0 and spec.role == "data" else size
        return known.get(f"{spec.name}:{axis}", unnamed if size == "?" else known.get(size, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the files of a model hold, read without running it.

    `operators` and `parameters` (elements of the weights by dtype) are named counts, the largest first.
    `quantization` says in words how the model is quantized already; `facts` are the producer, the opset …
    """

    files: tuple[Path, ...]
    operators: tuple[tuple[str, int], ...] = ()
    parameters: tuple[tuple[str, int], ...] = ()
    control_flow: tuple[str, ...] = ()
    quantization: str | None = None
    facts: Options = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """An operator that multiplies and accumulates; `macs` is None, with the reason, where it could not be counted."""

    name: str
    operator: str
    macs: int | None
    nonzero: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The multiply-accumulates (MACs) of one call, layer by layer.

    `excluded` are the operators that by convention are not multiply-accumulates (elementwise, normalization,
    softmax, pooling, data movement) with their counts.
    """

    layers: tuple[Layer, ...]
    excluded: tuple[tuple[str, int], ...] = ()

    @property
    def macs(self) -> int:
        """The MACs of all layers that could be counted."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """The MACs whose weight is not zero."""
        return sum(layer.nonzero or 0 for layer in self.layers)

    @property
    def uncounted(self) -> tuple[Layer, ...]:
        """The layers whose MACs could not be determined."""
        return tuple(layer for layer in self.layers if layer.macs is None)

    @property
    def coverage(self) -> float:
        """The share of the layers that could be counted; 1 when nothing is left out."""
        return 1.0 - len(self.uncounted) / len(self.layers) if self.layers else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """Something that can be done with a model, or the reason why it can't."""

    name: str
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is known of a model without running it.

    `contents` and `work` are None where the format doesn't tell; `readings` are its size and its MACs, and say why
    when one can't be had. `precision` is the share of the parameters by dtype, the largest first. `states` are the
    pairs of an input and the output that feeds it at the next call, given or found by their names.
    """

    model: Model
    contents: Contents | None
    work: Work | None
    readings: tuple[Reading, ...]
    precision: tuple[tuple[str, float], ...]
    states: tuple[tuple[str, str], ...]
    runtimes: tuple[Ability, ...]
    techniques: tuple[Ability, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number with its unit, its interval and where it comes from.

    `value` is None when provenance is "unavailable": unavailable is never zero. `low` and `high` bound
    the value at confidence `level`; `place` is the class, layer, batch size … the number belongs to.
    `scope` says in words what is covered.
    """

    name: str
    value: float | None
    unit: str = "1"
    direction: Direction = "none"
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    samples: int = 1
    provenance: Provenance = "measured"
    source: str = ""
    scope: str = ""
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A series over time or over items (seconds since its start, or a plain index)."""

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    unit: str = "1"
    provenance: Provenance = "measured"
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The computer that a measurement was made on. `digest` covers what never changes while it runs."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_bytes: int
    hypervisor: str | None
    governor: str | None
    system: str
    python: str
    versions: Options
    load_average: float | None = None
    pressure: float | None = None
    steal_s: float | None = None

    @property
    def digest(self) -> str:
        """The identity of the machine and its software: measurements of other machines are never compared."""
        return content_digest(
            self.cpu, self.flags, self.cores, self.hypervisor, self.system, self.python, self.versions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A machine with its measured peaks: `peak_macs` by data type (MAC/s) and `peak_bandwidth` (B/s).

    `time` says when the peaks were measured (ISO 8601, UTC); the load in the machine's record is that of now.
    """

    machine: Machine
    peaks: tuple[Reading, ...]
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was read of one variant at one task and workload on one machine.

    `warnings` say what to be careful about where quality was read: notes on the data, and answers near chance.
    """

    variant: Variant
    task: str
    workload: Workload
    readings: tuple[Reading, ...]
    traces: tuple[Trace, ...] = ()
    options: Options = ()
    machine: Machine
    time: str
    warnings: tuple[str, ...] = ()

    def reading(self, name: str, place: str | None = None) -> Reading | None:
        """Return the reading of that name and place, or None."""
        return next((r for r in self.readings if r.name == name and r.place == place), None)

    def value(self, name: str, place: str | None = None) -> float | None:
        """Return the value of the reading of that name and place, or None."""
        found = self.reading(name, place)
        return found.value if found else None

    def named(self, name: str) -> Iterator[Reading]:
        """Yield the readings of that name at every place."""
        return (r for r in self.readings if r.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound on a reading (its name, or what people type for it) in its SI unit: `p99 <= 0.02`."""

    reading: str
    relation: Literal["<=", ">="]
    bound: float

    def __post_init__(self) -> None:
        from trimtab.core.words import reading_name  # words make these values

        object.__setattr__(self, "reading", reading_name(self.reading))

    def holds(self, value: float) -> bool:
        """Say whether a value keeps the limit."""
        return value <= self.bound if self.relation == "<=" else value >= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One reading to improve while quality drops by at most `max_drop` and the limits hold.

    `objective` is the name of a reading, or what people type for it (size, memory); throughput is always maximized.
    `max_drop` is in the metric's own unit (0.01 is one point of accuracy); None protects nothing (speed only).
    `margin` is the smallest ratio of times that counts as a difference (0.03 is 3 %).
    `error` is the risk of a wrong certificate.
    """

    objective: str = "latency"
    direction: Literal["minimize", "maximize"] = "minimize"
    max_drop: float | None = 0.01
    limits: tuple[Limit, ...] = ()
    workload: Workload = field(default_factory=Workload)
    margin: float = 0.03
    error: float = 0.05

    def __post_init__(self) -> None:
        from trimtab.core.words import reading_name  # words make these values

        if self.objective != "latency":  # of which no single reading is meant: times are compared as ratios
            object.__setattr__(self, "objective", reading_name(self.objective))
        if self.objective == "throughput":
            object.__setattr__(self, "direction", "maximize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How a reading of `variant` compares with that of `baseline`, from one interleaved run.

    `value` is variant / baseline (for times, below 1 is faster); `low`, `high` its interval at `level`.
    `noise` is the ratio of wall-clock to processor-time ratios' spreads: the noise audit; None when engines spin.
    """

    reading: str
    variant: str
    baseline: str
    value: float
    low: float
    high: float
    level: float
    margin: float
    verdict: SpeedVerdict
    blocks: int
    processes: int
    noise: float | None = None
    cache: str = "warm, blocks of several calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoWorse:
    """The proof, or the lack of one, that `variant` is not worse than `baseline` by more than `max_drop`.

    `difference` is variant − baseline in the metric's unit with its two-sided interval at 1 − 2·`error`, whose lower
    end is what is proven; `better` and `worse` count the items that only one of the two got right; `flips` the items
    answered differently. `needed` is about how many items would decide when these can't: groups, where items come in
    `groups`.
    """

    metric: str
    variant: str
    baseline: str
    max_drop: float
    error: float
    method: str
    items: int
    groups: int
    difference: float
    low: float
    high: float
    better: int
    worse: int
    flips: int
    proven: bool
    needed: int | None = None
    reason: str = ""
    harmed: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Measurements side by side with the verdicts that may be drawn between them; the first one is the baseline.

    `self_test` is the ratio of the baseline against itself: it must not say faster or slower. `warnings` say what to
    be careful about (notes on the data, answers of the baseline near chance), `notes` how answers were read.
    """

    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...] = ()
    quality: tuple[NoWorse, ...] = ()
    self_test: Ratio | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was proven, on which data, and how to run it again."""

    claim: str
    no_worse: NoWorse
    ratios: tuple[Ratio, ...]
    data: str
    original: str
    looks: int
    seed: int
    machine: Machine
    command: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of a network: how it was configured, its curves, and the model that came of it.

    `traces` are over whole epochs (from 1). `readings` are the quality on the select split, of which the best epoch was
    chosen, and what the training took. `finished` is False where the time was up first: it can be continued.
    """

    configuration: Options
    traces: tuple[Trace, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...]
    model: Model | None
    finished: bool
    checkpoint: Path
    machine: Machine
    time: str
    command: str = ""

    def trace(self, name: str) -> Trace | None:
        """Return the trace of that name, or None."""
        return next((trace for trace in self.traces if trace.name == name), None)

    def reading(self, name: str) -> Reading | None:
        """Return the reading of that name that is about everything, or None."""
        return next((reading for reading in self.readings if reading.name == name and reading.place is None), None)


TrialState = Literal["kept", "dropped", "skipped", "failed", "proven", "unproven"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One variant that a search tried: what became of it, why, and where its log is.

    `screening` is the time ratio to the model as given, `quality` what it lost on the select split; neither is proof.
    Of a finalist that was tested `quality` is the proof, or the lack of one. `seconds` is what trying it took (and
    making it, where that failed), `making_s` what each of its steps took: trials of the same first steps share that.
    """

    name: str
    steps: tuple[Step, ...]
    settings: Settings
    variant: Variant | None
    state: TrialState
    reason: str
    measurement: Measurement | None = None
    screening: Ratio | None = None
    quality: NoWorse | None = None
    log: Path | None = None
    seconds: float = 0.0
    making_s: tuple[float, ...] = ()
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `optimize` found: both baselines, everything tried, the winner and its certificate.

    `comparison` holds the final paired run (as given first, best untouched second, then the proven variants).
    `winner` is the name of a trial, None when no variant kept the goal; `verdict` is the sentence to read first.
    `notes` say what else was found (what another goal would have cost), `warnings` what to be careful about. `looks`
    is how many variants the certify items have been tested on so far, in all runs; 0 when none was.
    """

    goal: Goal
    task: Task
    verdict: str
    as_given: Trial
    untouched: Trial
    trials: tuple[Trial, ...]
    comparison: Comparison
    winner: str | None
    certificate: Certificate | None
    machine: Machine
    spent: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    looks: int = 0
    command: str = ""
    version: str = ""
