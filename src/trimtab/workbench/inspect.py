"""Says what a model is and what can be done with it, in a second or two, without running it."""

from __future__ import annotations

from trimtab.core import plugins
from trimtab.core.errors import TrimtabError
from trimtab.core.protocols import Described, Runtime, Technique
from trimtab.core.values import Ability, Contents, Inspection, Model, Reading, Settings, Task, Variant, Workload
from trimtab.data.synthetic import shapes
from trimtab.meters.compute import bound, readings, work
from trimtab.meters.size import size


def inspect(model: Model, workload: Workload | None = None, task: Task | None = None) -> Inspection:
    """Return what a model is and what can be done with it.

    Args:
        model: An opened model.
        workload: The call whose MACs are counted, by default a batch of one; lengths that it leaves free are those
            of synthetic inputs, and told in the scope of the readings.
        task: The data that techniques may count on; by default none, and those that need data say so.
    """
    workload = workload or Workload()
    workload = bound(model.signature, workload, shapes(model.signature, workload))
    described = plugins.make("formats", model.format)
    contents = described.contents(model) if isinstance(described, Described) else None
    found = work(model, workload)
    computed = _why(found) if isinstance(found, str) else readings(found, workload)
    runtimes = tuple(_runs(name, model) for name in plugins.names("runtimes"))
    able = next((ability.name for ability in runtimes if ability.refusal is None), "")
    variant = Variant(model=model, settings=Settings(runtime=able))
    return Inspection(
        model=model,
        contents=contents,
        work=None if isinstance(found, str) else found,
        readings=(*size(model), *computed),
        precision=precision(contents),
        states=tuple((spec.name, spec.fed_by) for spec in model.signature.states if spec.fed_by is not None),
        runtimes=runtimes,
        techniques=tuple(_applies(name, variant, task or Task()) for name in plugins.names("techniques")),
    )


def precision(contents: Contents | None) -> tuple[tuple[str, float], ...]:
    """Return the share of the parameters by dtype, the largest first."""
    counts = contents.parameters if contents is not None else ()
    total = sum(count for _, count in counts)
    return tuple((dtype, count / total) for dtype, count in counts if total)


def _why(reason: str) -> tuple[Reading, ...]:
    return (Reading(name="macs", value=None, provenance="unavailable", scope=reason),)


def _runs(name: str, model: Model) -> Ability:
    try:
        runtime: Runtime = plugins.make("runtimes", name)
        return Ability(name=name, refusal=runtime.refuses(Variant(model=model, settings=Settings(runtime=name))))
    except (TrimtabError, ImportError) as error:
        return Ability(name=name, refusal=f"it can't be loaded: {error}")


def _applies(name: str, variant: Variant, task: Task) -> Ability:
    try:
        technique: Technique = plugins.make("techniques", name)
        return Ability(name=name, refusal=technique.refuses(variant, task))
    except (TrimtabError, ImportError) as error:
        return Ability(name=name, refusal=f"it can't be loaded: {error}")
