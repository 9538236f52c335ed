"""A small trained model with real data, and jobs on it that end within seconds."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from trimtab.core.errors import WorkerCrashed
from trimtab.core.machine import machine
from trimtab.core.protocols import Arrays, Samples
from trimtab.core.values import Goal, NoWorse, Ratio, Settings, Step, Task, Trial, Variant
from trimtab.search.budget import Budget
from trimtab.search.journal import Journal
from trimtab.search.making import Shop
from trimtab.search.progress import Silent
from trimtab.search.race import Race
from trimtab.testing.fakes import FakeProcessSession
from trimtab.workbench import timing
from trimtab.workbench.opening import open_model
from trimtab.workbench.optimize import Effort, Job


@pytest.fixture(scope="session")
def digits_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A linear classifier of scikit-learn's digits as ONNX, and the items it was not trained on as .npz."""
    folder = tmp_path_factory.mktemp("digits")
    inputs, labels = load_digits(return_X_y=True)
    inputs = inputs.astype(np.float32) / 16
    fitted = LogisticRegression(max_iter=300).fit(inputs[:600], labels[:600])
    weights = [fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32)]
    hidden = np.eye(64, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w", "b"], ["scores"], name="second"),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(value, name)
            for value, name in zip([*weights, hidden], ["w", "b", "hidden"], strict=True)
        ],
    )
    model, data = folder / "linear.onnx", folder / "data.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    np.savez(data, inputs=inputs[600:], labels=labels[600:])
    return model, data


@pytest.fixture
def probability(tmp_path: Path) -> Callable[[float], Variant]:
    """Make a binary model that answers with its one input, taken so many times, as the probability."""

    def make(times: float) -> Variant:
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "times"], ["p"])],
            "probability",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
            [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(np.array([times], np.float32), "times")],
        )
        path = tmp_path / f"times-{times}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return open_model(path, tmp_path / "opened").on(Settings(runtime="onnxruntime", threads=1))

    return make


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def job(digits_files: tuple[Path, Path], tmp_path: Path) -> Callable[..., Job]:
    """Make a job on the linear classifier; keywords replace its parts."""

    def make(**given: Any) -> Job:
        model, data = digits_files
        effort = Effort(seconds=20, only=("onnxruntime", "static-int8", "dynamic-int8"), trials=4)
        parts = {"model": model, "data": data, "output": tmp_path / "out", "goal": Goal(), "effort": effort}
        return Job(**{**parts, **given})

    return make


@pytest.fixture
def over(digits_files: tuple[Path, Path], tmp_path: Path) -> Iterator[Race]:
    """A race that is over: nothing is known of it but what a test enters."""
    original = open_model(digits_files[0], tmp_path / "model")
    shop = Shop(task=Task(), goal=Goal(), original=original, folder=tmp_path / "work" / "variants")
    made = Race(
        shop=shop,
        journal=Journal(tmp_path / "work" / "journal.jsonl"),
        budget=Budget(seconds=600),
        progress=Silent(),
        machine=machine(),
    )
    yield made
    made.close()


class Crashing(FakeProcessSession):
    """A fake session that crashes when it is timed, if its variant is among some."""

    def __init__(self, variant: Variant, keys: Container[str]) -> None:
        super().__init__(variant, dict, lambda number, items: 10_000 + number * 7919 % 13)
        self._keys = keys

    def time(self, inputs: Arrays, calls: int, timeout_s: float | None = None) -> Samples:
        if self.variant.key in self._keys:
            error = WorkerCrashed("crashed with SIGSEGV (time)")
            error.variant = self.variant.key
            raise error
        return super().time(inputs, calls, timeout_s)


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Time with fake sessions; those of the variants whose keys a test adds crash."""
    keys: set[str] = set()
    monkeypatch.setattr(timing, "open_session", lambda variant, log, limits: nullcontext(Crashing(variant, keys)))
    monkeypatch.setattr(timing, "_LEAST_S", 0.01)
    monkeypatch.setattr(timing, "_EACH_S", 0.001)
    return keys


def verdict_on(worse: int, items: int = 700, **given: Any) -> NoWorse:
    """What was found of a variant that answers so many items wrong which the original answers right."""
    parts = {
        "metric": "accuracy", "variant": "v", "baseline": "b", "max_drop": 0.01, "error": 0.05,
        "method": "Tango's score test", "items": items, "groups": items, "difference": -worse / items, "low": -1.0,
        "high": 1.0, "better": 0, "worse": worse, "flips": worse, "proven": worse == 0,
        "reason": "" if worse == 0 else "loses too much",
    }  # fmt: skip
    return NoWorse(**{**parts, **given})


@pytest.fixture
def enter(over: Race) -> Callable[..., Trial]:
    """Enter a trial into the race: its techniques, its time ratio, and how many of 700 items it loses."""

    def made(*techniques: str, value: float = 1.0, worse: int = 0, threads: int | None = None, **given: Any) -> Trial:
        steps = tuple(Step(technique=name) for name in techniques)
        settings = Settings(runtime="onnxruntime", threads=threads)
        variant = Variant(model=over.shop.original.model, settings=settings, steps=steps)
        screening = Ratio(
            reading="latency", variant=variant.key, baseline="b", value=value, low=0.99 * value, high=1.01 * value,
            level=0.95, margin=0.03, verdict="inconclusive", blocks=16, processes=1,
        )  # fmt: skip
        parts = {
            "name": variant.label(), "steps": steps, "settings": settings, "variant": variant, "state": "kept",
            "reason": "", "screening": screening, "quality": verdict_on(worse), "seconds": 1.0,
        }  # fmt: skip
        trial = Trial(**{**parts, **given})
        over.journal.add(trial)
        over.names.append(trial.name)
        return trial

    return made
