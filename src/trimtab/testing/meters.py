"""The laws of a meter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

from trimtab.core.codec import dumps, loads
from trimtab.core.protocols import Meter, Session
from trimtab.core.values import Direction, Provenance, Reading, Task, Trace, Workload
from trimtab.testing import laws
from trimtab.testing.fakes import FakeProcessSession, FakeSession
from trimtab.testing.samples import Sample, samples, task

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_ROUNDING = 1e-12
_UNITS = {"latency": "s", "load_time": "s", "first_call": "s", "bytes": "B", "peak_memory": "B", "throughput": "1/s"}


class MeterSuite:
    """What every meter keeps. Subclass it, name the class `Test…`, and set `plugin`.

    The sessions are fakes that answer what the network computes and take a millisecond a call.
    """

    plugin: ClassVar[type[Any]]

    def samples(self) -> Sequence[Sample]:
        """Return models to read."""
        return [sample for sample in samples()[0] if sample.variant.model.format == "onnx"]

    def test_has_a_name_and_no_option_without_a_default(self) -> None:
        laws.check_kind(self.plugin, Meter)

    def test_every_number_has_a_name_a_unit_and_a_source_and_lies_in_its_interval(self, tmp_path: Path) -> None:
        for number, sample in enumerate(self.samples()):
            given = task(sample.network, tmp_path / f"{number}")
            for workload in (Workload(), Workload(batch=4)):
                check_readings(self._read(_session(sample), sample, given, workload))

    def test_what_cannot_be_had_is_unavailable_with_its_reason_and_never_zero(self, tmp_path: Path) -> None:
        sample = self.samples()[0]
        bare = FakeSession(sample.variant, sample.network.answer)  # tells nothing about its start
        check_readings(self._read(bare, sample, task(sample.network, tmp_path), Workload()))
        check_readings(self._read(_session(sample), sample, Task(), Workload()))

    def test_reads_what_it_says_that_it_reads(self, tmp_path: Path) -> None:
        told = getattr(self.plugin, "readings", None)
        sample = self.samples()[0]
        found = self._read(_session(sample), sample, task(sample.network, tmp_path), Workload())
        read = {item.name: item.unit for item in found if isinstance(item, Reading)}
        assert told is None or read == told, f"`readings` says {told}, and it read {read}"

    def test_counting_again_counts_the_same(self, tmp_path: Path) -> None:
        sample = self.samples()[0]
        given = task(sample.network, tmp_path)
        once, again = (self._read(_session(sample), sample, given, Workload()) for _ in range(2))
        first, second = ([item for item in found if item.provenance == "counted"] for found in (once, again))
        assert first == second, f"{first} became {second}"

    def test_readings_can_be_written_and_read_back(self, tmp_path: Path) -> None:
        sample = self.samples()[0]
        for item in self._read(_session(sample), sample, task(sample.network, tmp_path), Workload()):
            assert loads(type(item), dumps(item)) == item, f"{item.name} is not made of plain values"

    def test_closes_the_sessions_that_it_opens_and_not_the_one_it_is_given(self, tmp_path: Path) -> None:
        sample = self.samples()[0]
        session = _session(sample)
        self._read(session, sample, task(sample.network, tmp_path), Workload())
        assert not session.closed, "the session that was given was closed: it belongs to the caller"
        assert all(opened.closed for opened in session.opened), "a session that the meter opened stays open"

    def test_leaves_the_model_and_the_data_alone(self, tmp_path: Path) -> None:
        sample = self.samples()[0].copied(tmp_path / "given")
        given = task(sample.network, tmp_path / "task")
        before = laws.contents(tmp_path)
        self._read(_session(sample), sample, given, Workload())
        assert laws.contents(tmp_path) == before, "files were changed or left behind"

    def _read(self, session: Session, sample: Sample, given: Task, workload: Workload) -> Sequence[Reading | Trace]:
        meter: Meter = self.plugin()
        return laws.unless_missing(lambda: meter.read(session, sample.variant, given, workload))


def check_readings(found: Sequence[Reading | Trace]) -> None:
    """Check that there are readings or traces, that none occurs twice, and that each is well formed."""
    assert found, "a meter that can't read says so in a reading with provenance 'unavailable'"
    for kind in (Reading, Trace):
        places = [(item.name, item.place) for item in found if isinstance(item, kind)]
        assert len(set(places)) == len(places), f"the same name and place twice: {sorted(places, key=str)}"
    for item in found:
        assert _NAME.fullmatch(item.name), f"the name {item.name!r} is not lower-case words joined by underscores"
        assert item.unit, f"{item.name} has no unit"
        assert item.provenance in get_args(Provenance), f"{item.name} comes from {item.provenance!r}"
        if isinstance(item, Trace):
            _check_trace(item)
        else:
            _check_reading(item)


def _check_reading(reading: Reading) -> None:
    name, value = reading.name, reading.value
    assert reading.direction in get_args(Direction), f"{name} has the direction {reading.direction!r}"
    wanted = next((unit for start, unit in _UNITS.items() if name.startswith(start)), reading.unit)
    assert reading.unit == wanted, f"{name} is in {reading.unit!r}, its unit is {wanted!r}"
    if reading.provenance == "unavailable":
        assert value is None, f"{name} is unavailable and {value!r}: unavailable is never a number"
        assert reading.scope, f"{name} is unavailable without a reason in its scope"
        return
    assert value is not None, f"{name} has no value and is not unavailable"
    assert math.isfinite(value), f"{name} is {value}"
    slack = _ROUNDING * abs(value)
    assert reading.low is None or reading.low <= value + slack, f"{name} is {value}, its interval begins {reading.low}"
    assert reading.high is None or value - slack <= reading.high, f"{name} is {value}, its interval ends {reading.high}"
    assert 0 < reading.level < 1, f"{name} has an interval at level {reading.level}"
    assert reading.samples > 0, f"{name} is a number from {reading.samples} samples"
    assert reading.source, f"{name} does not say its source"


def _check_trace(trace: Trace) -> None:
    assert len(trace.times) == len(trace.values) > 0, f"{trace.name} has {len(trace.times)} times"
    assert list(trace.times) == sorted(trace.times), f"the times of {trace.name} go back"


def _session(sample: Sample) -> FakeProcessSession:
    return FakeProcessSession(sample.variant, sample.network.answer)
