"""What several suites ask: sentences, names, what a folder holds, what a plug-in imports in a fresh process."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from unittest import SkipTest

from trimtab.core import plugins
from trimtab.core.errors import MissingExtra, TrimtabError
from trimtab.core.process import Process, imported

T = TypeVar("T")

FRAMEWORKS = ("onnxruntime", "openvino", "nncf", "torch", "transformers", "tensorflow", "jax", "tvm")
"""What takes seconds to import, and so is imported only when it is used."""

OPTIONAL = (
    "openvino", "nncf", "torch", "transformers", "tokenizers", "safetensors", "onnxscript", "PIL",
    "mlflow", "tensorboard", "torch_pruning", "tensorly",
)  # fmt: skip
"""What trimtab runs without."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def skip(reason: str) -> NoReturn:
    """End a test as skipped, with the reason said aloud; unittest and pytest both know this exception."""
    raise SkipTest(reason)


def check_kind(plugin: type[Any], seam: type[Any]) -> None:
    """Check that a plug-in is named as people type it, needs no option, and has the methods of its seam."""
    name = getattr(plugin, "name", None)
    assert isinstance(name, str), f"{plugin.__name__} has no attribute `name`"
    assert _NAME.fullmatch(name), f"the name {name!r} is not lower-case words joined by dashes"
    for option, parameter in inspect.signature(plugin).parameters.items():
        assert parameter.default is not parameter.empty, f"the option {option} of {name} has no default"
    assert isinstance(plugin(), seam), f"{name} has not all that a {seam.__name__} has: see core/protocols.py"


def check_sentence(text: object, about: str = "") -> None:
    """Check that a reason or message is words on one line, and that it mentions what it is about."""
    assert isinstance(text, str), f"{text!r} is not a text"
    assert len(text.split()) >= 3, f"{text!r} is not a reason in words"
    assert "\n" not in text.strip(), f"more than one line: {text!r}"
    assert about in text, f"{text!r} does not mention {about!r}"


def check_refusal(call: Callable[[], object], what: str) -> None:
    """Check that a call raises one of trimtab's own errors, its message one line in words."""
    try:
        call()
    except TrimtabError as error:
        check_sentence(str(error))
    else:
        raise AssertionError(f"{what} was not refused")


def contents(folder: Path, without: Path | None = None) -> dict[Path, str]:
    """Return the digest of every file in a folder, those below `without` left out."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (without and path.is_relative_to(without))
    }


def installed(group: str, plugin: type[Any]) -> bool:
    """Say whether a plug-in is found through its entry point, as worker processes find it."""
    return plugin.name in plugins.names(group) and plugins.plugin_class(group, plugin.name) is plugin


def suites(group: str, suite: type[Any]) -> dict[str, type[Any]]:
    """Return one class of tests per plug-in found in a group, by its name: `TestStaticInt8` for static-int8."""
    found = {}
    for name in plugins.names(group):
        title = "Test" + name.title().replace("-", "")
        found[title] = type(title, (suite,), {"plugin": plugins.plugin_class(group, name)})
    return found


def unless_missing(call: Callable[[], T]) -> T:
    """Return what a call returns; skip the test when the call needs a package that is not installed."""
    try:
        return call()
    except MissingExtra as error:
        skip(str(error))


def address(plugin: type[Any]) -> str:
    """Return the "module:name" of a plug-in's class; skip the test when another process can't import it."""
    if importlib.util.find_spec(plugin.__module__.partition(".")[0]) is None:
        skip(f"{plugin.__module__} can't be imported by another process: put the plug-in into a module of its own")
    return f"{plugin.__module__}:{plugin.__qualname__}"


def elsewhere(plugin: type[Any], *calls: tuple[str, tuple[Any, ...]], without: Sequence[str] = ()) -> list[str]:
    """Call methods of a new instance in a fresh process; return which frameworks that process then holds.

    Modules named in `without` can't be imported there. Errors of trimtab's come back as they were raised.
    """
    with Process(f"{__name__}:Probe", address(plugin), tuple(without)) as process:
        held: list[str] = process.call("call", calls)
        return held


class Missing(MetaPathFinder):
    """Finds none of the named packages, as if they were not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for the named packages; leave the others to the next finder."""
        if fullname.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


class Probe:
    """The object in the process of `elsewhere`."""

    def __init__(self, plugin: str, without: Sequence[str]) -> None:
        sys.meta_path.insert(0, Missing(without))
        self._plugin = imported(plugin)()

    def call(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[str]:
        """Call methods one after the other and return the frameworks that are imported by then."""
        for method, arguments in calls:
            getattr(self._plugin, method)(*arguments)
        return [name for name in FRAMEWORKS if name in sys.modules]
