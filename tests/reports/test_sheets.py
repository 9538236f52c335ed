from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console

from trimtab.core.values import Contents, Reading
from trimtab.reports.sheets import hardware_table, inspection_table


@dataclass(frozen=True)
class FakeAble:
    name: str
    refusal: str | None = None


@dataclass(frozen=True)
class FakeInspected:
    model: object
    contents: object
    readings: tuple
    precision: tuple
    runtimes: tuple
    techniques: tuple


@dataclass(frozen=True)
class FakeMachinery:
    machine: object
    peaks: tuple
    time: str


def printed(renderable, width=80):
    out = StringIO()
    Console(file=out, width=width, no_color=True).print(renderable)
    return " ".join(out.getvalue().split())


def inspected(model, contents):
    return FakeInspected(
        model=model,
        contents=contents,
        readings=(
            Reading(name="parameters", value=1_183_242.0, provenance="counted"),
            Reading(name="macs", value=None, provenance="unavailable", scope="a free dimension"),
        ),
        precision=(("float32", 0.75), ("int8", 0.25)),
        runtimes=(FakeAble("onnxruntime"), FakeAble("torch", "torch runs PyTorch models")),
        techniques=(FakeAble("static-int8", "it is quantized already"),),
    )


def test_model_is_told_with_inputs_work_and_what_can_be_done(result):
    contents = Contents(
        files=(Path("m.onnx"),),
        operators=tuple((f"Op{n}", 20 - n) for n in range(13)),
        quantization="int8 weights (QDQ)",
        facts=(("ir_version", 10),),
    )
    text = printed(inspection_table(inspected(result.as_given.variant.model, contents)))
    for said in (
        "/models/mnist.onnx",
        "float32, batch × 1 × 28 × 28",
        "1.18 M (1,183,242)",
        "unavailable: a free dimension",
        "75 % float32, 25 % int8",
        "quantized already int8 weights (QDQ)",
        "ir version 10",
        "Op9 11",
        "… 3 more kinds",
        "onnxruntime yes",
        "no: torch runs PyTorch models",
        "no: it is quantized already",
    ):
        assert said in text


def test_model_whose_format_tells_nothing_is_still_told(result):
    assert "Operators" not in printed(inspection_table(inspected(result.as_given.variant.model, None)))


def test_machine_is_told_with_its_peaks_and_their_range(result):
    peaks = (
        Reading(name="peak_macs", value=1.2e11, low=1.1e11, high=1.2e11, unit="MAC/s", place="int8", scope="best of 5"),
        Reading(name="peak_macs", value=None, unit="MAC/s", provenance="unavailable", place="bf16", scope="no engine"),
        Reading(name="peak_bandwidth", value=1.18e10, unit="B/s"),
    )
    text = printed(hardware_table(FakeMachinery(result.machine, peaks, "2026-11-20T10:15:00")), 100)
    for said in (
        "Example CPU 9, 2 cores",
        "Measured peaks (2026-11-20)",
        "peak MACs, int8 120 GMACs/s (110–120); best of 5",
        "peak MACs, bf16 unavailable: no engine",
        "peak bandwidth 11.8 GB/s (no interval)",
    ):
        assert said in text
