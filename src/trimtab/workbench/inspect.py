"""Says what a model is and what can be done with it: files are read, PyTorch modules are traced on shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimtab.core import plugins
from trimtab.core.errors import TrimtabError
from trimtab.core.protocols import Described
from trimtab.core.values import Ability, Contents, Inspection, Model, Settings, Task, Variant, Workload
from trimtab.data.synthetic import shapes
from trimtab.meters.compute import bound, readings, work
from trimtab.meters.readings import unavailable
from trimtab.meters.size import size


def inspect(model: Model) -> Inspection:
    """Return what a model is and what can be done with it.

    The MACs are those of a batch of one; free lengths are those of synthetic inputs, and told in the scope of the
    readings. Techniques that need data say so.
    """
    workload = bound(model.signature, Workload(), shapes(model.signature, Workload()))
    contents = contents_of(model)
    found = work(model, workload)
    computed = (unavailable("macs", found),) if isinstance(found, str) else readings(found, workload)

    def on(runtime: str) -> Variant:
        return Variant(model=model, settings=Settings(runtime=runtime))

    runtimes = _abilities("runtimes", lambda runtime: runtime.refuses(on(runtime.name)))
    able = on(next((ability.name for ability in runtimes if ability.refusal is None), ""))
    return Inspection(
        model=model,
        contents=contents,
        work=None if isinstance(found, str) else found,
        readings=(*size(model), *computed),
        precision=precision(contents),
        states=tuple((spec.name, spec.fed_by) for spec in model.signature.states if spec.fed_by is not None),
        runtimes=runtimes,
        techniques=_abilities("techniques", lambda technique: technique.refuses(able, Task())),
    )


def contents_of(model: Model) -> Contents | None:
    """Return what the files of a model hold, None where its format doesn't tell."""
    described = plugins.make("formats", model.format)
    return described.contents(model) if isinstance(described, Described) else None


def precision(contents: Contents | None) -> tuple[tuple[str, float], ...]:
    """Return the share of the parameters by dtype, the largest first."""
    counts = contents.parameters if contents is not None else ()
    total = sum(count for _, count in counts)
    return tuple((dtype, count / total) for dtype, count in counts if total)


def _abilities(group: str, refuses: Callable[[Any], str | None]) -> tuple[Ability, ...]:
    """Ask every plug-in of a group; one that can't be loaded is refused with the reason."""
    found = []
    for name in plugins.names(group):
        try:
            refusal = refuses(plugins.make(group, name))
        except (TrimtabError, ImportError) as error:
            refusal = f"it can't be loaded: {error}"
        found.append(Ability(name=name, refusal=refusal))
    return tuple(found)
