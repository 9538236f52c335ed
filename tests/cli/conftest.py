from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from trimtab.cli import main
from trimtab.testing.networks import PERCEPTRON

ITEMS = 800


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Trimtab = Callable[..., Done]


@pytest.fixture
def trimtab(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trimtab:
    """Run a command line as a shell would, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny network as ONNX, and 800 items with labels that it always gets right."""
    folder = tmp_path_factory.mktemp("given")
    model, data = folder / "net.onnx", folder / "items.npz"
    model.write_bytes(PERCEPTRON.graph(0).SerializeToString())
    inputs = PERCEPTRON.inputs(ITEMS, 0)
    np.savez(data, **inputs, labels=PERCEPTRON.answer(inputs)["scores"].argmax(axis=1))
    return model, data
