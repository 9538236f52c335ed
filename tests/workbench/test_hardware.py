from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Reading
from trimtab.workbench import hardware as subject
from trimtab.workbench.hardware import hardware


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Count the times that the peaks are measured, each with another value."""
    made: list[int] = []

    def fake_peaks() -> tuple[Reading, ...]:
        made.append(len(made))
        return (Reading(name="peak_macs", value=1e9 + len(made), unit="MAC/s", place="fp32"),)

    monkeypatch.setattr(subject, "peaks", fake_peaks)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    return made


def test_measures_once_and_keeps_it(runs: list[int]) -> None:
    first = hardware()
    assert hardware().peaks == first.peaks
    assert hardware().time == first.time
    assert len(runs) == 1
    assert first.machine.digest == machine().digest


def test_measures_again_when_asked(runs: list[int]) -> None:
    first, second = hardware(), hardware(refresh=True)
    assert len(runs) == 2
    assert second.peaks != first.peaks
    assert hardware().peaks == second.peaks


def test_another_machine_has_peaks_of_its_own(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    hardware()
    monkeypatch.setattr(subject, "machine", lambda: replace(machine(), cpu="another"))
    assert hardware().machine.cpu == "another"
    assert len(runs) == 2


def test_the_load_is_that_of_now(runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    hardware()
    monkeypatch.setattr(subject, "machine", lambda: replace(machine(), load_average=77.0))
    assert hardware().machine.load_average == 77.0
    assert len(runs) == 1


def test_a_damaged_file_is_measured_anew(runs: list[int], tmp_path: Path) -> None:
    hardware()
    (file,) = (tmp_path / "home" / "hardware").iterdir()
    file.write_text('{"machine": 1')
    hardware()
    assert len(runs) == 2
    hardware()
    assert len(runs) == 2


def test_refuses_before_measuring_when_nothing_can_be_kept(runs: list[int], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(BadInput, match="can't create the folder"):
        hardware()
    assert runs == []
