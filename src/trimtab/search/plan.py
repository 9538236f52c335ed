"""What to try, in which order: cheap moves before dear ones, each part reading what the ones before it found.

The parts are generators of variants: the search asks for the next one only when the last one has been tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Runtime, Technique
from trimtab.core.values import Goal, Machine, Settings, Step, Task, Trial, Variant, Workload, options
from trimtab.search.race import Race, settings_of

_PROMISING = 1.15  # a default within this factor of the best is worth varying


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The runtimes and techniques a search may use, in the order it tries them."""

    runtimes: tuple[Runtime, ...]
    techniques: tuple[Technique, ...]

    def technique(self, name: str) -> Technique | None:
        """Return the technique of that name, or None."""
        return next((t for t in self.techniques if t.name == name), None)


def toolbox(only: Sequence[str] = ()) -> Toolbox:
    """Return every plug-in found, or those named.

    Runtimes that start fastest (`startup_s`) come first, and techniques that gain most for their cost (`order`).
    """

    unknown = set(only) - set(plugins.names("runtimes")) - set(plugins.names("techniques"))
    if unknown:
        known_names = ", ".join((*plugins.names("runtimes"), *plugins.names("techniques")))
        raise BadInput(f"--only {min(unknown)!r} is no runtime and no technique; known are: {known_names}")

    def chosen(group: str) -> list[str]:
        known = set(plugins.names(group))
        return [name for name in plugins.names(group) if not set(only) & known or name in only]

    runtimes = sorted(
        (plugins.make("runtimes", name) for name in chosen("runtimes")), key=lambda r: _cost(r, "startup_s")
    )
    techniques = sorted(
        (plugins.make("techniques", name) for name in chosen("techniques")), key=lambda t: _cost(t, "order")
    )
    return Toolbox(runtimes=tuple(runtimes), techniques=tuple(techniques))


def lossless(technique: Technique) -> bool:
    """Say whether a technique keeps the weights as they are, so that its result is still untouched.

    Such a technique is an export; its `produces` names the format that it makes.
    """
    return bool(getattr(technique, "lossless", False))


def untouched(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the original, and the same weights on every runtime's defaults, once for each precision."""
    yield race.shop.original
    for variant in sources(race, tools):
        for runtime in _by_cost(tools.runtimes, race):
            seen: set[str | None] = set()
            for candidate in _settings(race, runtime, variant):
                if candidate.settings.precision not in seen:
                    seen.add(candidate.settings.precision)
                    yield candidate


def sources(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the original, and its exports to formats that runtimes which can't run it as it is do run."""
    original = race.shop.original
    yield original
    able = {r.name for r in tools.runtimes if r.refuses(original.on(Settings(runtime=r.name))) is None}
    for technique in tools.techniques:
        if not lossless(technique) or technique.refuses(original, race.shop.task) is not None:
            continue
        produced = replace(original, model=replace(original.model, format=getattr(technique, "produces", "")))
        opened = {r.name for r in tools.runtimes if r.refuses(produced.on(Settings(runtime=r.name))) is None}
        if opened - able:
            made = race.made(original, Step(technique=technique.name))
            if made is not None:
                able |= opened
                yield made


def touched(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield what every technique makes with its default options, on the best settings of each runtime."""
    parents = list(sources(race, tools))
    for technique in tools.techniques:
        if lossless(technique) or getattr(technique, "rescue", False) or not _useful(technique, race.goal):
            continue
        for parent in parents:
            if technique.refuses(parent, race.shop.task) is None:
                yield from _applied(race, tools, parent, Step(technique=technique.name))
                break


def varied(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield promising techniques again, one option changed at a time."""
    for trial in _promising(race):
        step = trial.steps[-1]
        parent = _parent(race, tools, trial)
        if parent is None:
            continue
        chosen = {**plugins.defaults("techniques", step.technique), **dict(step.options)}
        for option, values in plugins.choices("techniques", step.technique).items():
            for value in values:
                if chosen[option] != value:
                    changed = options(dict(step.options), **{option: value})
                    yield from _applied(race, tools, parent, Step(technique=step.technique, options=changed))


def rescued(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield fast variants that lose too much, with their most damaging layers kept in float."""
    rescue = next((t for t in tools.techniques if getattr(t, "rescue", False)), None)
    if rescue is None or race.goal.max_drop is None:
        return
    best = race.best()
    done: set[str] = set()
    for trial in sorted(race.trials, key=race.score):
        lost = trial.state == "dropped" and trial.screening is not None and trial.steps
        if not lost or (best is not None and race.score(trial) > race.score(best) * (1 - race.goal.margin)):
            continue
        step, parent = trial.steps[-1], _parent(race, tools, trial)
        if parent is None or step.technique in done or step.technique == rescue.name:
            continue
        done.add(step.technique)
        arguments = ", ".join(f"{name}={value}" for name, value in step.options if value not in (None, ""))
        again = options(technique=step.technique, arguments=arguments, max_drop=race.goal.max_drop / 2)
        yield from _applied(race, tools, parent, Step(technique=rescue.name, options=again))


def refined(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the best untouched and the leaders on the settings of their runtimes that they have not been tried on.

    The untouched comes first: a baseline whose settings were searched less would make every gain look larger.
    """
    kept = sorted((t for t in race.trials if t.state == "kept"), key=race.score)
    known = {trial.name for trial in untouched_trials(race, tools)}
    plain, changed = ([t for t in kept if (t.name in known) == same] for same in (True, False))
    for trial in [*plain[:2], *changed[:2]]:
        runtime = next((r for r in tools.runtimes if r.name == trial.settings.runtime), None)
        if runtime is not None and trial.variant is not None:
            yield from _settings(race, runtime, trial.variant)


def everything(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield all of the above, in the order of what they cost."""
    parts = (untouched, touched, refined, rescued, varied, refined)
    return itertools.chain.from_iterable(part(race, tools) for part in parts)


def preview(original: Variant, task: Task, workload: Workload, machine: Machine, tools: Toolbox) -> list[str]:
    """Return what a search would try at least, without trying it."""
    lines = [f"baseline: {original.label()}"]
    for runtime in tools.runtimes:
        if reason := runtime.refuses(original.on(Settings(runtime=runtime.name))):
            lines.append(f"not tried: {runtime.name} on the model as given: {reason}")
        else:
            tried = [settings.label() for settings in runtime.settings(machine, workload)]
            lines += [f"best untouched: {label}" for label in tried]
    for technique in tools.techniques:
        if reason := technique.refuses(original, task):
            lines.append(f"not tried on the model as given: {technique.name}: {reason}")
            continue
        varies = plugins.choices("techniques", technique.name)
        words = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in varies.items())
        lines.append(f"technique: {technique.name}" + (f" ({words}, where its default is promising)" if words else ""))
    return lines


def _applied(race: Race, tools: Toolbox, parent: Variant, step: Step) -> Iterator[Variant]:
    """Yield what a step makes on the settings that were best for each runtime without it, or the runtime's first."""
    made = race.made(parent, step)
    if made is None:
        return
    known = untouched_trials(race, tools)
    for runtime in _by_cost(tools.runtimes, race):
        best = settings_of(known, runtime.name)[:2]
        tried = best or list(runtime.settings(race.machine, race.goal.workload))[:1]
        if made.settings.runtime == runtime.name and made.settings.precision not in {s.precision for s in tried}:
            tried = [made.settings, *tried]
        for settings in tried:
            if runtime.refuses(made.on(settings)) is None:
                yield made.on(settings)


def _settings(race: Race, runtime: Runtime, variant: Variant) -> Iterator[Variant]:
    for settings in runtime.settings(race.machine, race.goal.workload):
        candidate = variant.on(settings)
        if runtime.refuses(candidate) is None:
            yield candidate


def _useful(technique: Technique, goal: Goal) -> bool:
    """Say whether a technique can help the goal; one that `saves` a single reading helps only goals that name it."""
    saved = getattr(technique, "saves", None)
    return saved is None or saved in (goal.objective, *(limit.reading for limit in goal.limits))


def _by_cost(runtimes: Sequence[Runtime], race: Race) -> list[Runtime]:
    """Return the runtimes whose start-up the budget allows."""
    return [r for r in runtimes if 4 * _cost(r, "startup_s") <= race.budget.left()]


def _promising(race: Race) -> list[Trial]:
    """Return the best trial of each technique, when it is near the best of all or was fast and lost too much."""
    best = race.best()
    limit = race.score(best) * _PROMISING if best else float("inf")
    found: dict[str, Trial] = {}
    for trial in sorted(race.trials, key=race.score):
        if trial.steps and trial.variant is not None and race.score(trial) <= limit:
            found.setdefault(trial.steps[-1].technique, trial)
    return [trial for name, trial in found.items() if plugins.choices("techniques", name)]


def _parent(race: Race, tools: Toolbox, trial: Trial) -> Variant | None:
    """Return the variant that the last step of a trial was applied to."""
    before = trial.steps[:-1]
    return next((source for source in sources(race, tools) if source.steps == before), None)


def _is_untouched(trial: Trial, tools: Toolbox) -> bool:
    """Say whether a trial runs the weights as they were given."""
    return all((t := tools.technique(step.technique)) is not None and lossless(t) for step in trial.steps)


def untouched_trials(race: Race, tools: Toolbox) -> list[Trial]:
    """Return the trials that run the weights as they were given."""
    return [trial for trial in race.trials if _is_untouched(trial, tools)]


def _cost(plugin: object, name: str) -> float:
    return float(getattr(plugin, name, 0.0))
