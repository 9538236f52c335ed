"""Make a trained neural network faster, smaller and greener without making it worse, and prove it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.values import Goal, Limit, Model, Result, Task, Variant, Workload
    from trimtab.data.request import DataRequest
    from trimtab.data.task import open_task
    from trimtab.serving.bundle import load
    from trimtab.workbench.compare import Care
    from trimtab.workbench.opening import ModelRequest, open_model
    from trimtab.workbench.optimize import Effort
    from trimtab.workbench.verbs import Requests, compare, measure, optimize

__version__ = "0.1.0"

__all__ = [
    "Care",
    "DataRequest",
    "Effort",
    "Goal",
    "Limit",
    "Model",
    "ModelRequest",
    "Requests",
    "Result",
    "Task",
    "Variant",
    "Workload",
    "compare",
    "load",
    "measure",
    "open_model",
    "open_task",
    "optimize",
]

_HOMES = {
    "trimtab.core.values": ("Goal", "Limit", "Model", "Result", "Task", "Variant", "Workload"),
    "trimtab.data.request": ("DataRequest",),
    "trimtab.data.task": ("open_task",),
    "trimtab.serving.bundle": ("load",),
    "trimtab.workbench.compare": ("Care",),
    "trimtab.workbench.opening": ("ModelRequest", "open_model"),
    "trimtab.workbench.optimize": ("Effort",),
    "trimtab.workbench.verbs": ("Requests", "compare", "measure", "optimize"),
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use, so that `import trimtab` and the command line start at once."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'trimtab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
