from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import (
    Measurement,
    Model,
    Reading,
    Settings,
    Signature,
    Step,
    Task,
    TensorSpec,
    Variant,
    Workload,
    options,
)
from trimtab.stores.folder import FolderStore, measurement_key

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 3)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 2)),),
)
VARIANT = Variant(
    model=Model(format="onnx", path=Path("a.onnx"), digest="d", signature=SIGNATURE),
    settings=Settings(runtime="onnxruntime"),
)
HERE = machine()
WHOLE: dict[str, Any] = {
    "variant": VARIANT,
    "task": Task(digest="t"),
    "workload": Workload(),
    "meters": options(latency=""),
    "machine": HERE,
}


def measurement(value: float = 0.25) -> Measurement:
    return Measurement(
        variant=VARIANT,
        task="t",
        workload=Workload(),
        readings=(Reading(name="latency_p50", value=value, unit="s", low=0.2, high=float("inf")),),
        machine=HERE,
        time="2025-01-01T00:00:00+00:00",
    )


def test_returns_what_was_put_and_none_for_what_was_not(tmp_path):
    store = FolderStore(str(tmp_path / "new"))
    assert store.get("a1") is None
    store.put("a1", measurement())
    assert store.get("a1") == measurement()
    assert FolderStore(str(tmp_path / "new")).get("a1") == measurement(), "another process finds it too"
    assert store.get("a2") is None


def test_what_is_put_again_replaces_the_old(tmp_path):
    store = FolderStore(str(tmp_path))
    store.put("a1", measurement(1.0))
    store.put("a1", measurement(2.0))
    assert store.get("a1") == measurement(2.0)


@pytest.mark.parametrize("content", [b"", b'{"variant": 1', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none(tmp_path, content):
    store = FolderStore(str(tmp_path))
    store.put("a1", measurement())
    (tmp_path / "a1.json").write_bytes(content)
    assert store.get("a1") is None


@pytest.mark.parametrize("key", ["", "../a", "a/b", "a.b"])
def test_a_key_can_not_leave_the_folder(tmp_path, key):
    with pytest.raises(BadInput, match="is not a key"):
        FolderStore(str(tmp_path)).put(key, measurement())


def test_is_kept_in_the_home_of_trimtab_when_no_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    FolderStore().put("a1", measurement())
    assert (tmp_path / "measurements" / "a1.json").is_file()


@pytest.mark.parametrize(
    "changed",
    [
        {"variant": replace(VARIANT, model=replace(VARIANT.model, digest="e"))},
        {"variant": replace(VARIANT, model=replace(VARIANT.model, format="openvino"))},
        {"variant": VARIANT.on(Settings(runtime="onnxruntime", threads=1))},
        {"variant": replace(VARIANT, steps=(Step(technique="bf16"),))},
        {"variant": replace(VARIANT, absorbed=(Step(technique="scale"),))},
        {"task": Task(digest="u")},
        {"workload": Workload(batch=2)},
        {"meters": options(latency="", quality="")},
        {"machine": replace(HERE, versions=options(onnxruntime="0"))},
        {"machine": replace(HERE, cpu="another")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_anything_that_may_change_a_number_changes_the_key(changed):
    assert measurement_key(**{**WHOLE, **changed}) != measurement_key(**WHOLE)


def test_what_changes_no_number_leaves_the_key():
    moved = replace(VARIANT, model=replace(VARIANT.model, path=Path("elsewhere/a.onnx")))
    busy = replace(HERE, load_average=9.0, steal_s=5.0)
    assert measurement_key(**{**WHOLE, "variant": moved, "machine": busy}) == measurement_key(**WHOLE)
    assert measurement_key(**WHOLE).isalnum()
