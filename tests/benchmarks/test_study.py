"""How case studies are told: a command is run once, its last lines and its pictures are shown."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def study(importable: None) -> Any:
    pytest.importorskip("torch")
    return importlib.import_module("study")


def step(folder: Path, *command: str, **more: Any) -> Any:
    given = {"title": "First", "about": "A beginning.", "command": command, "output": folder / "out"}
    return importlib.import_module("study").Step(**given | more)


def test_a_step_that_was_done_is_not_done_again(study: Any, tmp_path: Path) -> None:
    first, seconds = study.done(step(tmp_path, "trimtab", "--version"))
    record = tmp_path / "out.step.json"
    held = json.loads(record.read_text())
    assert held["printed"] == first
    assert held["seconds"] == seconds > 0
    record.write_text(json.dumps({**held, "printed": "as before"}))
    assert study.done(step(tmp_path, "trimtab", "--version")) == ("as before", seconds)


def test_another_command_is_another_step(study: Any, tmp_path: Path) -> None:
    study.done(step(tmp_path, "trimtab", "--version"))
    printed, _ = study.done(step(tmp_path, "trimtab", "--help"))
    assert "optimize" in printed


def test_a_step_that_fails_ends_the_story_and_is_not_remembered(study: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="failed with exit code 2"):
        study.done(step(tmp_path, "trimtab", "inspect", str(tmp_path / "nowhere.onnx")))
    assert not (tmp_path / "out.step.json").exists()


def test_a_page_shows_the_command_its_last_lines_and_its_pictures(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "curves.png").write_bytes(b"picture")
    story = study.Story("shoes", "Case study: shoes", ["Ten kinds of them."])
    story.add(step(tmp_path, "trimtab", "--help", lines=3, pictures=(("curves.png", "Loss by epoch"),)))
    story.write()
    page = (tmp_path / "studies" / "shoes.md").read_text()
    assert page.startswith("# Case study: shoes\n\nTen kinds of them.\n")
    assert "## First\n\nA beginning.\n\n```console\n$ trimtab --help\n…\n" in page
    assert "![Loss by epoch](shoes/out-curves.png)" in page
    assert (tmp_path / "studies" / "shoes" / "out-curves.png").read_bytes() == b"picture"
    shown = page.partition("…\n")[2].partition("```")[0]
    assert len(shown.splitlines()) == 3
