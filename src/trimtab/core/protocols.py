"""The seams: what a plug-in must offer. One to three methods each.

Built-in and foreign plug-ins are found through the same entry-point groups (see `core/plugins.py`).
Options of a plug-in are the typed keyword arguments of its class; `Annotated[float, Choices(0.25, 0.5)]`
marks one that a search may vary, `Annotated[float, Range(0.1, 0.9)]` one whose numbers it may propose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trimtab.core.values import (
    Contents,
    Machine,
    Measurement,
    Model,
    Reading,
    Scalar,
    Settings,
    Task,
    Trace,
    Variant,
    Work,
    Workload,
)

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Choices:
    """Marks a keyword argument as a dimension of the search, with the values worth trying."""

    values: tuple[Scalar, ...]

    def __init__(self, *values: Scalar) -> None:
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Range:
    """Marks a keyword argument as a dimension of the search, with the numbers worth trying: least, most, and steps."""

    low: float
    high: float
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How the user said a model is to be opened. `folder` is where a format may write what it must build."""

    folder: Path
    weights: Path | None = None
    trust_pickle: bool = False
    states: tuple[tuple[str, str], ...] = ()
    example: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    """Example inputs (name, shape, dtype) for formats whose files do not say what they take."""


@runtime_checkable
class Format(Protocol):
    """Reads models of one kind from disk.

    What else of an `Opening` than `folder` and `trust_pickle` a format makes use of, it names in an attribute `reads`;
    whatever is not named there is refused before `open` is called.
    """

    name: str

    def claims(self, source: str) -> bool:
        """Say, from a few bytes at most, whether `source` (a path or `module:function`) is of this format."""
        ...

    def open(self, source: str, opening: Opening) -> Model:
        """Check the source and return it as a model; raise `BadInput` with one clear line when it can't be used."""
        ...

    def load(self, model: Model) -> Any:
        """Return the live object (`onnx.ModelProto`, `torch.nn.Module` …) of an opened model."""
        ...


@runtime_checkable
class Described(Protocol):
    """What a format may offer besides: what a model holds and does, told without running it."""

    def contents(self, model: Model) -> Contents:
        """Return the files, operators and parameters of the model."""
        ...

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call, layer by layer."""
        ...


class Engine(Protocol):
    """A model made ready to run, inside one process: a call maps named arrays to named arrays.

    An engine that chooses the type it computes in by itself tells it in an attribute `precision`.
    """

    def __call__(self, inputs: Arrays, /) -> dict[str, Array]:
        """Run once; the first axis of every data input is the batch."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Runs variants. `load` is called inside a worker process of its own, or by `trimtab.load` in the user's."""

    name: str

    def refuses(self, variant: Variant) -> str | None:
        """Say in words why this variant can't run here, or None. Imports no framework."""
        ...

    def settings(self, machine: Machine, workload: Workload) -> Sequence[Settings]:
        """Return the settings worth trying on this machine, the runtime's own defaults first."""
        ...

    def load(self, variant: Variant) -> Engine:
        """Return the engine, compiled and ready; raise `MissingExtra` when its framework is not installed."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Times of single calls in nanoseconds, in the order they were made; processor time is of the whole process."""

    wall_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]


class Session(Protocol):
    """A handle to the worker process that holds one engine. The process starts at the first use."""

    variant: Variant

    def run(self, inputs: Arrays, timeout_s: float | None = None) -> dict[str, Array]:
        """Return the outputs for one batch; for a stateful model the second axis of its data inputs is time."""
        ...

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        """Time that many calls on the same inputs; the loop runs inside the worker."""
        ...

    def close(self) -> None:
        """End the process. Closing twice does no harm."""
        ...


@runtime_checkable
class Informed(Protocol):
    """What a session may offer besides: how its process started, and what the engine chose by itself."""

    def info(self) -> Mapping[str, Any]:
        """Return load_s, first_call_s (NaN before it), peak_memory_bytes and empty_memory_bytes as numbers.

        `precision` is the type that the engine computes in by its own word ("bf16"), None where it doesn't tell.
        """
        ...


@runtime_checkable
class Renewable(Protocol):
    """What a session may offer besides: another process for the same variant."""

    def fresh(self) -> Session:
        """Return a session of the same variant in a process of its own, not started yet; the caller closes it."""
        ...


@runtime_checkable
class Pausable(Protocol):
    """What a session may offer besides: to stand still while others are timed.

    The threads of some engines spin while they idle (ONNX Runtime's for 40 ms and more), at the cost of whatever is
    timed next.
    """

    def pause(self) -> None:
        """Stop all threads of the session until its next call."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Reads one thing of a variant.

    Which readings it gives, the unit of each by its name, a meter may say in an attribute `readings`: they are told
    unavailable when it fails.
    """

    name: str

    def read(self, session: Session, variant: Variant, task: Task, workload: Workload) -> Sequence[Reading | Trace]:
        """Return readings and traces; one that can't be had is returned with provenance "unavailable"."""
        ...


class Evaluate(Protocol):
    """Tells what a variant loses on the select split."""

    def __call__(self, variant: Variant, most: float | None = None) -> float:
        """Return the loss in the metric's unit; given `most`, only as exactly as it takes to compare with that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a technique may use: the task, the original, a folder of its own, a seed, a deadline, and two callables.

    `evaluate(variant)` returns what is lost on the select split, in the metric's unit (0.01 is one point worse than
    the original); `evaluate(variant, most)` looks only at as many items as it takes to tell whether more than `most`
    is lost. `time(variant)` returns the seconds of one call at the goal's workload. `deadline` is in
    `time.monotonic()` seconds; a technique that goes on much longer is ended. `shared` is a folder of the whole run for
    what is dear to find out twice, such as a teacher's answers; None where there is only the own one.
    """

    task: Task
    original: Variant
    folder: Path
    seed: int
    deadline: float
    evaluate: Evaluate
    time: Callable[[Variant], float]
    shared: Path | None = None


@runtime_checkable
class Technique(Protocol):
    """Maps a variant to a variant. Never changes the one it is given.

    What else a technique may say of itself, as attributes of its class: `order` (what gains most for its cost has the
    least), `lossless` and `produces` (exports), `saves` (the only reading that it improves), `needs_training` (what it
    makes is no good before it is trained), `afresh` (that is a network of its own, whatever it is made of), `trains`
    (what others changed), `tidy` (it leaves nothing behind in its process, where another such may go on), and
    `resumes`: what a killed run left half made in its folder is what it goes on from.
    """

    name: str

    def refuses(self, variant: Variant, task: Task) -> str | None:
        """Say in words why this can't be done to that variant, or None. Imports no framework."""
        ...

    def apply(self, variant: Variant, context: Context) -> Variant:
        """Return the new variant, its files in `context.folder`, its steps one longer."""
        ...


@runtime_checkable
class Store(Protocol):
    """Keeps measurements by key."""

    name: str

    def get(self, key: str) -> Measurement | None:
        """Return what was put under the key, or None."""
        ...

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep the measurement; a crash in the middle leaves the old one or none."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Logs a run where people look."""

    name: str

    def start(self, run: str, configuration: Mapping[str, Scalar]) -> None:
        """Begin a run; what is logged next belongs to it."""
        ...

    def log(self, readings: Sequence[Reading], step: int) -> None:
        """Log readings of one step."""
        ...

    def end(self, status: str, artifacts: Sequence[Path]) -> None:
        """End the run with the files it made."""
        ...
