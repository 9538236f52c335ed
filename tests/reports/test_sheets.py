from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from trimtab.core.values import Ability, Contents, Hardware, Inspection, Reading, Run, Signature, TensorSpec
from trimtab.reports.sheets import epoch_line, hardware_table, inspection_table, memory_table, run_table
from trimtab.training.checkpoint import Epoch
from trimtab.training.memory import Memory, Phase, StepMemory


def printed(renderable, width=80):
    out = StringIO()
    Console(file=out, width=width, no_color=True).print(renderable)
    return " ".join(out.getvalue().split())


def inspected(model, contents):
    return Inspection(
        model=model,
        contents=contents,
        work=None,
        states=(),
        readings=(
            Reading(name="parameters", value=1_183_242.0, provenance="counted"),
            Reading(name="macs", value=None, provenance="unavailable", scope="a free dimension"),
        ),
        precision=(("float32", 0.75), ("int8", 0.25)),
        runtimes=(Ability(name="onnxruntime"), Ability(name="torch", refusal="torch runs PyTorch models")),
        techniques=(Ability(name="static-int8", refusal="it is quantized already"),),
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
    text = printed(hardware_table(Hardware(machine=result.machine, peaks=peaks, time="2026-11-20T10:15:00")), 100)
    for said in (
        "Example CPU 9, 2 cores",
        "Measured peaks (2026-11-20)",
        "peak MACs, int8 120 GMACs/s (110–120); best of 5",
        "peak MACs, bf16 unavailable: no engine",
        "peak bandwidth 11.8 GB/s (no interval)",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TensorSpec(name="x", dtype="float32", shape=()), "float32, scalar"),
        (TensorSpec(name="x", dtype="int64", shape=("batch", "?", 3)), "int64, batch × ? × 3"),
        (TensorSpec(name="x", dtype="float32", shape=(1,), role="state", fed_by="y"), "float32, 1, state fed by y"),
        (TensorSpec(name="x", dtype="float32", shape=(1,), role="constant"), "float32, 1, constant"),
    ],
    ids=["scalar", "free dimensions", "state", "constant"],
)
def test_an_input_is_told_with_type_shape_and_role(result, spec, said):
    model = replace(result.as_given.variant.model, signature=Signature(inputs=(spec,), outputs=()))
    assert f"Inputs x {said} Size and work" in printed(inspection_table(inspected(model, None)))


def test_unknown_precision_and_control_flow_are_said(result):
    found = replace(
        inspected(result.as_given.variant.model, Contents(files=(), control_flow=("Loop", "If"))), precision=()
    )
    text = printed(inspection_table(found))
    assert "precision unknown" in text
    assert "control flow Loop, If" in text


def test_names_of_strangers_can_not_steer_the_terminal(result):
    evil = "\x1b]0;owned\x07[red]\nx"
    contents = Contents(files=(), facts=(("producer", evil),), operators=((evil, 1),))
    out = StringIO()
    Console(file=out, width=120, force_terminal=True, color_system=None).print(
        inspection_table(inspected(result.as_given.variant.model, contents))
    )
    assert "\x1b]" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert out.getvalue().count("�]0;owned�[red]�x") == 2


EPOCH = Epoch(
    number=3, steps=40, loss=0.12345, score=0.975, rate=5e-4, optimizer="adam", seconds=1.5, cpu_s=2.5, waited_s=0.1
)


def test_an_epoch_is_told_in_one_line():
    said = "epoch 3: loss 0.1235, accuracy 97.5 %, learning rate 0.0005 (adam), 1.50 s"
    assert epoch_line(EPOCH, "accuracy") == said
    assert epoch_line(EPOCH, "accuracy", "optimizer=sgd, seed 1") == f"optimizer=sgd, seed 1: {said}"


@pytest.mark.parametrize("finished", [True, False])
def test_a_training_is_told_with_what_it_reached_and_took_and_what_happened(result, finished):
    readings = (
        Reading(name="accuracy", value=0.975, low=0.95, high=0.99, direction="higher", scope="select split"),
        Reading(name="accuracy", value=0.5, place="cat"),
        Reading(name="f1_macro", value=0.9, scope="select split"),
        Reading(name="roc_auc", value=None, provenance="unavailable", scope="a single class"),
        Reading(name="train_cpu_time", value=250.0, unit="s"),
    )
    run = Run(
        configuration=(), traces=(), readings=readings, notes=("the loss was nan",), model=None, finished=finished,
        checkpoint=Path("work"), machine=result.machine, time="2026-11-22",
    )  # fmt: skip
    text = printed(run_table(run), 120)
    assert "Quality read on select split accuracy 97.5 % (95.0–99.0) ROC AUC unavailable: a single class" in text
    assert "Taken train cpu time 250 s" in text
    assert "Notes 1 the loss was nan" in text
    assert "cat" not in text
    assert ("the time was up: run the same command again to go on" in text) is not finished


def test_a_step_tells_its_phases_and_what_every_measure_saves(result):
    phase = Phase(name="forward", parameters=1000, gradients=0, optimizer=2000, activations=7000)
    steps = (
        StepMemory(name="as asked", phases=(phase,), peak=12_000, resident=50_000),
        StepMemory(name="bf16 autocast", phases=(replace(phase, activations=3500),), peak=8000, resident=60_000),
        StepMemory(name="activation checkpointing", reason="the module has no blocks"),
    )
    found = Memory(items=64, steps=steps, machine=result.machine, time="2026-11-22")
    text = printed(memory_table(found), 120)
    assert "One step on 64 items, tensors counted" in text
    assert "forward 1.00 kB 0 B 2.00 kB 7.00 kB 10.0 kB" in text
    assert "as asked 7.00 kB 12.0 kB 50.0 kB" in text
    assert "bf16 autocast 3.50 kB 8.00 kB 4.00 kB 60.0 kB −10.0 kB" in text
    assert "activation checkpointing can't be: the module has no blocks" in text
