from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.values import Reading, Step, Task, Workload
from trimtab.data.arrays import save_array
from trimtab.meters.end_to_end import EndToEndMeter, preparation, preprocessing_times


def read(session: Any, task: Task, workload: Workload | None = None) -> Reading:
    (found,) = EndToEndMeter(calls=8).read(session, session.variant, task, workload or Workload())
    assert isinstance(found, Reading)
    return found


def test_is_never_less_than_the_call_alone(fakes: Any, timed_task: Task) -> None:
    session = fakes.session(fakes.variant(), call_ns=lambda number, batch: 50_000_000)
    found = read(session, timed_task, Workload(batch=2))
    assert found.name == "latency_end_to_end"
    assert found.value is not None
    assert found.value > 0.05
    assert found.low is not None
    assert found.low > 0.05
    assert set(session.timed) == {2}


def test_preprocessing_runs_on_every_batch(timed_task: Task, fakes: Any) -> None:
    prepare = preparation(timed_task, timed_task.splits[0], fakes.variant().model)
    sizes: list[int] = []
    times = preprocessing_times(lambda rows: sizes.append(len(prepare(rows)["x"])), 3, calls=6, seconds=60)
    assert (len(times), sizes) == (6, [3] * 7)
    assert (times > 0).all()
    assert len(preprocessing_times(prepare, 3, calls=6, seconds=0)) == 2


def test_says_which_steps_it_could_not_time(fakes: Any, timed_task: Task) -> None:
    step = Step(technique="resize", options=(("once", True), ("size", 4)))
    session = fakes.session(fakes.variant())
    assert "without resize" in read(session, replace(timed_task, preprocessing=(step,))).scope
    assert "without" not in read(session, timed_task).scope


def test_what_is_done_once_is_timed_where_items_are_kept_as_they_came(
    fakes: Any, timed_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import numpy as np\nseen = []\ndef corners(batch):\n    seen.append(batch.shape)\n"
    (tmp_path / "own_corners.py").write_text(code + "    return batch[:, 0, :3].astype(np.float32)\n")
    monkeypatch.chdir(tmp_path)
    step = Step(technique="call", options=(("function", "own_corners:corners"), ("once", True)))
    task, session = replace(timed_task, preprocessing=(step,)), fakes.session(fakes.variant())
    assert "without call" in read(session, task).scope
    raw = save_array("raw", tmp_path / "raw.npy", np.arange(128, dtype=np.uint8).reshape(2, 8, 8))
    kept = replace(task, splits=(replace(task.splits[0], raw=raw),))
    assert read(session, kept, Workload(batch=3)).scope.endswith("is preprocessing, without decoding files")
    own = importlib.import_module("own_corners")
    assert len(own.seen) >= 3
    assert set(own.seen) == {(3, 8, 8)}
    made = preparation(kept, kept.splits[0], session.variant.model)(np.arange(3))
    assert made["x"].tolist() == [[0, 1, 2], [64, 65, 66], [0, 1, 2]]


def test_without_items_there_is_nothing_to_prepare(fakes: Any) -> None:
    found = read(fakes.session(fakes.variant()), Task())
    assert (found.value, found.provenance, found.unit) == (None, "unavailable", "s")
    assert found.scope == pytest.approx("the task has no items to prepare")
