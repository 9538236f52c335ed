"""Suites for every plug-in that is installed."""

from __future__ import annotations

from typing import Any

from trimtab.core import plugins


def suites(group: str, suite: type[Any]) -> dict[str, type[Any]]:
    """Return one class of tests per plug-in found in a group, by its name: `TestStaticInt8` for static-int8."""
    found = {}
    for name in plugins.names(group):
        title = "Test" + name.title().replace("-", "")
        found[title] = type(title, (suite,), {"plugin": plugins.plugin_class(group, name)})
    return found
