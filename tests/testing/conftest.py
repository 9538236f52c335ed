"""Broken plug-ins are caught by the law that they break, and by its words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest

Broken = Callable[..., str]


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    """Return a function that says, in the words of the failure, which law a plug-in breaks; "" when it keeps it."""

    def judge(suite: type[Any], plugin: type[Any], law: str, **more: Any) -> str:
        made = type("TestIt", (suite,), {"plugin": plugin, **more})()
        method = getattr(made, law)
        wanted = "tmp_path" in method.__code__.co_varnames[: method.__code__.co_argcount]
        try:
            method(*([tmp_path] if wanted else []))
        except AssertionError as error:
            return str(error) or "it failed without words"
        except SkipTest as error:
            raise AssertionError(f"skipped: {error}") from error
        return ""

    return judge


@pytest.fixture
def module(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a function that writes a module which other processes can import too, and imports it."""
    folder = tmp_path_factory.mktemp("modules")
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def write(text: str) -> Any:
        name = f"broken_{len(list(folder.glob('*.py')))}_{folder.name.replace('-', '_')}"
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("broken_"):
            del sys.modules[name]
