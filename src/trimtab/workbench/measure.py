"""Reads what a model costs and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core import plugins
from trimtab.core.errors import BadInput, WorkerError
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Meter, Store
from trimtab.core.values import Machine, Measurement, Options, Reading, Scalar, Task, Trace, Variant, Workload, options
from trimtab.data.batches import labels as labels_of
from trimtab.meters.foreign import read_foreign
from trimtab.meters.predict import predict, settled
from trimtab.meters.quality import tuned, wants_tuning
from trimtab.meters.readings import failed
from trimtab.meters.size import compression
from trimtab.runtimes.session import ProcessSession, open_session
from trimtab.search.race import METERS, foreign_meters
from trimtab.stores.folder import measurement_key

_BITS = {"fp32": 32, "bf16": 16, "fp16": 16}


def measure(
    variant: Variant,
    task: Task,
    workload: Workload | None = None,
    *,
    meters: Sequence[str] | Mapping[str, Options] | None = None,
    split: str = "select",
    store: Store | None = None,
    machine: Machine | None = None,
    log: Path | None = None,
) -> Measurement:
    """Read a variant with the meters named (all that are installed by default), a mapping names their options as well.

    The quality meter answers `split`. A measurement that the store already holds is returned as it is.
    """
    workload = workload or Workload()
    machine = machine or this_machine()
    names = (*METERS, *foreign_meters()) if meters is None else meters
    chosen = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, ())
    if "quality" in chosen:
        _check_split(task, split, asked=meters is not None)
    said = options({name: ", ".join(f"{k}={v}" for k, v in given) for name, given in chosen.items()}, split=split)
    key = measurement_key(variant, task, workload, said, machine)
    if store is not None and (kept := store.get(key)) is not None:
        return kept
    if "quality" in chosen:
        task = tuned_to(variant, task, workload)
    found, warnings = _read(variant, task, workload, chosen, split, log)
    measurement = Measurement(
        variant=variant,
        task=task.digest,
        workload=workload,
        readings=tuple(item for item in found if isinstance(item, Reading)),
        traces=tuple(item for item in found if isinstance(item, Trace)),
        options=said,
        machine=machine,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=(*warnings, *task.notes) if "quality" in chosen else warnings,
    )
    if store is not None:
        store.put(key, measurement)
    return measurement


def tuned_to(variant: Variant, task: Task, workload: Workload) -> Task:
    """Return the task with its threshold tuned on the answers of a variant to the select split, where it is to be."""
    split = task.split("select")
    labels = None if split is None else labels_of(split)
    if split is None or labels is None or not wants_tuning(task):
        return task
    with open_session(variant) as session:
        outputs = predict(session, task, split, workload)
    return tuned(settled(task, outputs), labels, outputs)


def with_options(
    meters: Sequence[str] | None, given: Mapping[str, Mapping[str, Scalar]], task: Task
) -> Sequence[str] | Mapping[str, Options] | None:
    """Return the meters named (all that are installed, for None) with their options, for `measure`."""
    if not given:
        return meters
    every = [name for name in (*METERS, *foreign_meters()) if name != "quality" or task.splits]
    names = every if meters is None else meters
    for name in given:
        plugins.plugin_class("meters", name)
        if name not in names:
            raise BadInput(f"{name} has options but isn't read: add it to the meters, or leave its options out")
    if "split" in given.get("quality", {}):
        raise BadInput("which items are answered is no option of a meter: say it with --split (in Python: split)")
    return {name: options(given.get(name, {})) for name in names}


def _check_split(task: Task, split: str, asked: bool) -> None:
    """Raise `BadInput` when the items to answer are not there, though there are items or quality was asked for."""
    if task.split(split) is None and (task.splits or asked):
        known = ", ".join(each.name for each in task.splits)
        raise BadInput(f"there is no split {split!r} to answer; {f'the data has {known}' if known else 'give --data'}")


def with_compression(measurement: Measurement, original: Measurement) -> Measurement:
    """Return the measurement with the compression rates (original / compressed) against another one added."""
    return replace(measurement, readings=(*measurement.readings, *compression(original.readings, measurement.readings)))


def _read(
    variant: Variant, task: Task, workload: Workload, chosen: Mapping[str, Options], split: str, log: Path | None
) -> tuple[list[Reading | Trace], tuple[str, ...]]:
    """Return what every meter reads and what they warn of.

    The readings of one whose worker fails are unavailable with the reason, the others go on.
    """
    found: list[Reading | Trace] = []
    warnings: list[str] = []
    for name, given in chosen.items():
        if name in foreign_meters():
            with open_session(variant, log) as session:
                found.extend(read_foreign(name, session, variant, task, workload, given))
            continue
        meter: Meter = plugins.make("meters", name, options(dict(given), split=split) if name == "quality" else given)
        if name == "quality" and task.split(split) is None:
            continue
        with open_session(variant, log) as session:
            try:
                found.extend(meter.read(session, variant, task, workload))
                if name == "latency":
                    found.extend(arithmetic(session))
                warnings.extend(getattr(meter, "warnings", ()))
            except (WorkerError, BadInput) as error:
                if name in ("latency", "quality"):
                    raise
                found.extend(failed(meter, name, str(error)))
    return found, tuple(warnings)


def arithmetic(session: ProcessSession) -> tuple[Reading, ...]:
    """Return the bits of the numbers that the engine computes in, its place the type; nothing where it doesn't tell."""
    told = session.info().get("precision")
    if told is None:
        return ()
    asked = session.variant.settings.precision
    scope = "as asked for" if told == asked else f"the engine's own choice, {asked or 'nothing'} was asked for"
    return (
        Reading(
            name="arithmetic",
            value=_BITS.get(told),
            unit="bit",
            provenance="counted" if told in _BITS else "unavailable",
            source="the engine",
            scope=scope,
            place=told,
        ),
    )
