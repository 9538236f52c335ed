from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.meters import peaks as subject
from trimtab.meters.peaks import DTYPES, ENGINES, Triad, last_level_cache_bytes, peaks


def test_measures_the_floor_and_says_what_it_can_not() -> None:
    readings = {(reading.name, reading.place): reading for reading in peaks(seconds=8, engines=["numpy", "no_such"])}
    assert list(readings) == [*(("peak_macs", dtype) for dtype in DTYPES), ("peak_bandwidth", None)]
    floor = readings["peak_macs", "fp32"]
    assert floor.value is not None
    assert floor.low is not None
    assert 1e6 < floor.low <= floor.value == floor.high
    assert (floor.unit, floor.source, floor.samples) == ("MAC/s", "numpy", subject.REPEATS)
    assert "no_such (not installed)" in floor.scope
    nothing = readings["peak_macs", "int8"]
    assert (nothing.value, nothing.provenance) == (None, "unavailable")
    assert readings["peak_bandwidth", None].unit == "B/s"


def test_without_time_nothing_is_measured() -> None:
    for reading in peaks(seconds=0, engines=["numpy"]):
        assert (reading.value, reading.provenance) == (None, "unavailable")
        assert "no time left" in reading.scope


def test_the_best_engine_gives_the_peak_and_its_own_range() -> None:
    here = subject.machine()
    found = subject._reading("peak_macs", {"slow": [1.0, 9.0], "fast": [5.0, 10.0], "none": []}, here, [], "MAC/s")
    assert (found.value, found.low, found.high, found.source) == (10.0, 5.0, 10.0, "fast")
    assert "best of slow, fast" in found.scope


@pytest.mark.parametrize(("engine", "dtype"), [("onnxruntime", "fp32"), ("onnxruntime", "int8")])
def test_engines_compute_the_product(engine: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SIDE", 32)
    call = ENGINES[engine](dtype, 1, np.random.default_rng(0))
    assert call is not None
    (product,) = call()  # type: ignore[misc]
    draw = np.random.default_rng(0)
    left, right = draw.integers(0, 256, (32, 32)), draw.integers(-127, 128, (32, 32))
    assert np.array_equal(product, left @ right)


def test_engines_do_not_pretend_to_types_they_lack() -> None:
    draw = np.random.default_rng(0)
    assert ENGINES["numpy"]("bf16", 1, draw) is None
    assert ENGINES["onnxruntime"]("bf16", 1, draw) is None


def test_a_rate_is_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(1000) * 0.5)
    monkeypatch.setattr(subject.time, "perf_counter", lambda: next(clock))
    # start at 0, look after the only call at 0.5, stop at 1.0: one call of 8 units in one second
    assert subject._repeated(lambda: None, 8.0, 0.0) == pytest.approx([8.0] * subject.REPEATS)


def test_the_triad_is_computed_on_every_element() -> None:
    arrays = [np.zeros(100_001), np.arange(100_001.0), np.ones(100_001)]
    subject._triad(arrays)
    assert np.array_equal(arrays[0], np.arange(100_001.0) + 3.0)


def test_the_arrays_are_larger_than_the_cache_but_spare_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "last_level_cache_bytes", lambda: 40 << 20)
    assert Triad(64 << 30, 1)._arrays[0].nbytes == 80 << 20
    assert Triad(1 << 30, 1)._arrays[0].nbytes == 64 << 20


def test_reads_the_largest_cache(tmp_path: Path) -> None:
    assert last_level_cache_bytes(tmp_path) == 32 << 20
    for index, text in enumerate(("32K", "1024K", "36M", "junk")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(text + "\n")
    assert last_level_cache_bytes(tmp_path) == 36 << 20
