"""What to try, in which order: cheap moves before dear ones, each part reading what the ones before it found.

The parts are generators of variants: the search asks for the next one only when the last one has been tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Runtime, Technique
from trimtab.core.values import Goal, Machine, NoWorse, Ratio, Settings, Step, Task, Trial, Variant, options
from trimtab.search.race import Race, marked, same_weights
from trimtab.search.study import Study

_PROMISING = 1.15  # a default within this factor of the best is worth varying
_NEARLY = 1.5  # a variant that lost less than that many times what is allowed may keep it with another option
_WORTH = 0.9  # a variant this much faster than the best is worth repairing: layers in float cost time again
_CHANGED = 0.05  # of the answers are others after training, typically: so much doubt the proof will have
_LUCK, _LUCK_TRAINED = 0.5, 1.5  # standard errors by which what was chosen, or trained and chosen, seems too good
_LEARNING = 0.4  # the share of the time left that a technique may take which trains what it makes by itself
_LESSONS = 2  # of the networks of which something fast loses too much
_RESCUE = 0.6  # the share of the time left that repairing one variant may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """The runtimes and techniques a search may use, in the order it tries them."""

    runtimes: tuple[Runtime, ...]
    techniques: tuple[Technique, ...]


def toolbox(only: Sequence[str] = (), *, train: bool = False) -> Toolbox:
    """Return every plug-in found, or those named; techniques that train, or need it, only to `train` or when named.

    Runtimes that start fastest (`startup_s`) come first, and techniques that gain most for their cost (`order`).
    """
    known = {group: plugins.names(group) for group in ("runtimes", "techniques")}
    unknown = set(only).difference(*known.values())
    if unknown:
        listed = ", ".join(itertools.chain(*known.values()))
        raise BadInput(f"--only {min(unknown)!r} is no runtime and no technique; known are: {listed}")

    def chosen(group: str, cost: str) -> tuple[Any, ...]:
        named = [name for name in known[group] if name in only]
        made = [plugins.make(group, name) for name in named or known[group]]
        usual = (each for each in made if named or train or not (needs_training(each) or trains(each) or learns(each)))
        return tuple(sorted(usual, key=lambda each: getattr(each, cost, 0.0)))

    return Toolbox(runtimes=chosen("runtimes", "startup_s"), techniques=chosen("techniques", "order"))


def lossless(technique: Technique) -> bool:
    """Say whether a technique keeps the weights as they are: an export, whose `produces` names the format it makes."""
    return bool(getattr(technique, "lossless", False))


def needs_training(technique: Technique) -> bool:
    """Say whether what a technique makes is no good before it is trained again, such as a pruned network.

    Where there is nothing to train on no search tries it unless it is named: alone it would only cost time.
    """
    return bool(getattr(technique, "needs_training", False))


def trains(technique: Technique) -> bool:
    """Say whether a technique trains what others have changed."""
    return bool(getattr(technique, "trains", False))


def learns(technique: Technique) -> bool:
    """Say whether a technique trains what it makes by itself, such as quantization-aware training.

    It is the last of a chain: what others have changed is trained before.
    """
    return bool(getattr(technique, "learns", False))


def untouched(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the original, and the same weights on every runtime's defaults, once for each precision."""
    yield race.shop.original
    for variant in sources(race, tools):
        for runtime in tools.runtimes:
            yield from _one_each(_settings(runtime, variant, race.machine, race.goal))


def sources(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the original, and its exports to formats that runtimes which can't run it as it is do run."""
    original = race.shop.original
    return _sources(original, race.shop.task, tools, lambda made: race.made(original, made.steps[-1]))


def _sources(
    original: Variant, task: Task, tools: Toolbox, make: Callable[[Variant], Variant | None]
) -> Iterator[Variant]:
    """Yield the original and what `make` makes of each export that opens a runtime, given what that will look like."""
    yield original
    able = _able(original, tools)
    for technique in tools.techniques:
        if not lossless(technique) or technique.refuses(original, task) is not None:
            continue
        model = replace(original.model, format=getattr(technique, "produces", ""))
        expected = original.after(model, Step(technique=technique.name))
        opened = _able(expected, tools)
        if opened - able and (made := make(expected)) is not None:
            able |= opened
            yield made


def _able(variant: Variant, tools: Toolbox) -> set[str]:
    """Return the runtimes that run a variant."""
    return {r.name for r in tools.runtimes if r.refuses(variant.on(Settings(runtime=r.name))) is None}


def touched(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield what every technique makes with its default options, on the best settings of each runtime."""
    parents = list(sources(race, tools))
    for technique in tools.techniques:
        later = needs_training(technique) and _trainer(race, tools) is not None
        if later or not _quick(technique) or not _useful(technique, race.goal):
            continue
        yield from _applied_to_first(race, tools, parents, technique)


def trained(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield what comes of changing the network itself and training it again, each then quantized (see `study`)."""
    trainer, task = _trainer(race, tools), race.shop.task
    able = (t for t in tools.techniques if needs_training(t))
    makers = tuple(t for t in able if t.refuses(race.shop.original, task) is None)
    plain = next(iter(kept_untouched(race)), None)
    if trainer is None or not makers or plain is None or race.goal.max_drop is None:
        return
    yield from Study(
        race=race,
        makers=makers,
        trainer=trainer,
        allowed=_typical_loss(task, race.goal.max_drop),
        plain=plain,
        finish=lambda variant: _finished(race, tools, variant),
        said=race.progress.stage,
        provable=lambda trial: _provable(race, trial),
    ).variants()


def _typical_loss(task: Task, max_drop: float) -> float:
    """Return what a network that changes a few answers in a hundred may lose on the select split to be proven."""
    select, certify = task.split("select"), task.split("certify")
    if task.kind not in ("classification", "binary") or select is None or certify is None:
        return 0.8 * max_drop
    return max(max_drop - _doubt(np.sqrt(_CHANGED), len(select), len(certify), _LUCK_TRAINED), 0.2 * max_drop)


def _doubt(spread: float, select: int, certify: int, luck: float) -> float:
    """Return by how much a loss on the select items has to be below the allowed one.

    That is 1.645 standard errors on the certify items for the proof, and `luck` on the select items, by which the
    variant was chosen; `spread` is the standard deviation of one item's loss.
    """
    return float(spread * (1.645 / np.sqrt(max(certify, 1)) + luck / np.sqrt(max(select, 1))))


def taught(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield what techniques make that train by themselves, such as quantization-aware training.

    One that improves any goal starts from the networks, as given or trained, of which something fast loses too much;
    one that `saves` a single reading from the model as given.
    """
    for technique in tools.techniques:
        if not learns(technique) or not _useful(technique, race.goal):
            continue
        saving = getattr(technique, "saves", None) is not None
        parents = [race.shop.original] if saving else list(dict.fromkeys(_lossy(race)))
        for parent in parents[:_LESSONS]:
            if technique.refuses(parent, race.shop.task) is None:
                yield from _applied(race, tools, parent, Step(technique=technique.name), _LEARNING)


def _lossy(race: Race) -> Iterator[Variant]:
    """Yield the networks, as given or as they were last trained, of which something fast loses too much."""
    for trial in _doubtful(race):
        taught_by = [end for end, step in enumerate(trial.steps, 1) if marked(step, "trains")]
        steps = trial.steps[: max(taught_by, default=0)]
        network = race.variants.get(steps) if steps else race.shop.original
        if network is not None:
            yield network


def nearly(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield fast variants that lost little more than allowed, one option changed at a time."""
    for trial in _doubtful(race):
        lost = -trial.quality.difference if trial.quality is not None else 0.0
        if lost <= _NEARLY * (race.goal.max_drop or 0.0):
            yield from _changed(race, tools, trial)


def varied(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield promising techniques again, one option changed at a time."""
    for trial in _promising(race):
        yield from _changed(race, tools, trial)


def rescued(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield fast variants that lose too much to be proven, with their most damaging layers kept in float."""
    rescue: Any = next((t for t in tools.techniques if hasattr(t, "rescue")), None)
    if rescue is None or race.goal.max_drop is None:
        return
    for trial in _doubtful(race):
        step, parent = trial.steps[-1], _parent(race, tools, trial)
        if parent is None or step.technique == rescue.name:
            continue
        most = provable_loss(trial, race.shop.task, race.goal.max_drop)
        yield from _applied(race, tools, parent, rescue.rescue(step, most), _RESCUE)


def provable_loss(trial: Trial, task: Task, max_drop: float) -> float:
    """Return what a repaired trial may lose on the select split to have a fair chance of being proven on the other.

    That is its `hoped_loss`, but at most four fifths of the allowed loss, and at least a tenth.
    """
    hoped = hoped_loss(trial, task, max_drop)
    most = np.clip(max_drop / 2 if hoped is None else hoped, 0.1 * max_drop, 0.8 * max_drop)
    return float(f"{most:.3g}")  # as a person would write it: it is part of the label


def hoped_loss(trial: Trial, task: Task, max_drop: float) -> float | None:
    """Return what a trial may lose on the select split to be proven rather than not; None when nothing can tell.

    What seems to be enough is lucky, most of all where training was ended and networks were chosen by the same items.
    Errors of classes are by the items that the trial changed, those of numbers by the interval that was found.
    """
    quality, select, certify = trial.quality, task.split("select"), task.split("certify")
    if quality is None or select is None or certify is None:
        return None
    if task.kind in ("classification", "binary"):
        spread = np.sqrt(changed_share(quality))
    else:
        spread = (quality.difference - quality.low) / 1.645 * np.sqrt(quality.items)
    learnt = any(marked(step, "trains", "learns") for step in trial.steps)
    luck = _LUCK_TRAINED if learnt else _LUCK
    return max_drop - _doubt(spread, len(select), len(certify), luck)


def changed_share(quality: NoWorse) -> float:
    """Return about which share of items only one of the two models gets right: as if one more were seen, and was."""
    return (quality.better + quality.worse + 1.0) / (max(quality.items, 1) + 1.0)


def tuned(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the best untouched on the settings of their runtimes that they have not been tried on.

    A baseline whose settings were searched less than others' would make every gain look larger.
    """
    for trial in kept_untouched(race)[:2]:
        yield from _on_its_settings(race, tools, trial)


def unfused(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the same weights with an engine's own graph fusion off: the trial tells what the fusion brings."""
    for variant in sources(race, tools):
        for runtime in tools.runtimes:
            yield from _settings(runtime, variant, race.machine, race.goal, fusion=False)


def refined(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield the leaders among the changed models on the settings that they have not been tried on."""
    kept = sorted((t for t in race.trials if t.state == "kept" and not same_weights(t.steps)), key=race.score)
    for trial in kept[:2]:
        yield from _on_its_settings(race, tools, trial)


def everything(race: Race, tools: Toolbox) -> Iterator[Variant]:
    """Yield all of the above, what gains most for its cost first."""
    parts = (untouched, touched, tuned, trained, unfused, nearly, rescued, taught, refined, varied, refined)
    return itertools.chain.from_iterable(part(race, tools) for part in parts)


def not_tried(race: Race, tools: Toolbox) -> list[str]:
    """Return the techniques that none of the trials used although they could have been, in the order of the plan."""
    used = {step.technique for trial in race.trials for step in trial.steps}
    able = [t for t in tools.techniques if t.name not in used and _useful(t, race.goal) and not hasattr(t, "rescue")]
    wanted = (t for t in able if not lossless(t) or _opens(t, race.shop.original, tools))
    return [t.name for t in wanted if t.refuses(race.shop.original, race.shop.task) is None]


def _opens(export: Technique, original: Variant, tools: Toolbox) -> bool:
    """Say whether an export makes a format that runtimes run which can't run the original."""
    made = replace(original.model, format=getattr(export, "produces", ""))
    return bool(_able(original.after(made, Step(technique=export.name)), tools) - _able(original, tools))


def preview(original: Variant, task: Task, goal: Goal, machine: Machine, tools: Toolbox) -> list[str]:
    """Return what a search would try, under the names of its trials, and what not and why, without trying it."""
    known = list(_sources(original, task, tools, lambda expected: expected))
    lines = [f"baseline: {original.label()}"]
    for runtime in tools.runtimes:
        lines += _previewed_on(runtime, known, machine, goal)
    return lines + [_previewed(technique, known, task, goal) for technique in tools.techniques]


def _previewed_on(runtime: Runtime, known: Sequence[Variant], machine: Machine, goal: Goal) -> Iterator[str]:
    """Yield what of the same weights a search would try on a runtime, in words."""
    if all(runtime.refuses(variant.on(Settings(runtime=runtime.name))) for variant in known):
        reason = runtime.refuses(known[0].on(Settings(runtime=runtime.name)))
        yield f"not tried: {runtime.name} on the model as given: {reason}"
    for variant in known:
        fused = list(_settings(runtime, variant, machine, goal))
        always = [*_one_each(fused), *_settings(runtime, variant, machine, goal, fusion=False)]
        yield from (f"best untouched: {each.label()}" for each in always if each != known[0])
        yield from (f"if among the best two untouched: {each.label()}" for each in fused if each not in always)


def _previewed(technique: Technique, known: Sequence[Variant], task: Task, goal: Goal) -> str:
    """Return in words whether a search would try a technique."""
    name, reason = technique.name, technique.refuses(known[0], task)
    exports = [variant.steps[-1].technique for variant in known[1:]]
    if name in exports:
        return f"export: {name}"
    if lossless(technique):
        return f"not tried: {name}: {reason or 'the engines that it is for run the model without it'}"
    if not _useful(technique, goal):
        return f"not tried: {name}: it helps only goals and limits on {getattr(technique, 'saves', None)}"
    if hasattr(technique, "rescue"):
        able = goal.max_drop is not None
        return (
            f"repair: {name}, of what is fast and loses too much"
            if able
            else f"not tried: {name}: nothing is protected"
        )
    if reason and not exports:
        return f"not tried: {name}: {reason}"
    if trains(technique):
        return f"training: {name}, of what other techniques have changed"
    if learns(technique):
        return f"training by itself: {name}, of what is fast and loses too much, or to save what the goal names"
    spans = "; ".join(
        f"{each}: {span.low:g} to {span.high:g}" for each, span in plugins.ranges("techniques", name).items()
    )
    if needs_training(technique) and spans:
        return f"change, to be trained: {name} ({spans})"
    varies = plugins.choices("techniques", name)
    words = "; ".join(f"{option}: {', '.join(map(str, values))}" for option, values in varies.items())
    made = f", on what {' or '.join(exports)} makes, if it takes that" if reason else ""
    return f"technique: {name}" + (f" ({words}, where its default is promising)" if words else "") + made


def _trainer(race: Race, tools: Toolbox) -> Technique | None:
    """Return the technique that trains, where it can train the original on this data."""
    able = (t for t in tools.techniques if trains(t) and t.refuses(race.shop.original, race.shop.task) is None)
    return next(able, None)


def _quick(technique: Technique) -> bool:
    """Say whether a technique changes weights, by itself and at once."""
    return not (lossless(technique) or trains(technique) or learns(technique) or hasattr(technique, "rescue"))


def _finished(race: Race, tools: Toolbox, learnt: Variant) -> Iterator[Variant]:
    """Yield a trained variant on every runtime, as it is and by what needs no training."""
    task, make = race.shop.task, race.made
    known = list(_sources(learnt, task, tools, lambda expected: make(learnt, expected.steps[-1])))
    for variant in known:
        yield from _on_best(race, tools, variant)
    for technique in tools.techniques:
        if _quick(technique) and not needs_training(technique) and _useful(technique, race.goal):
            yield from _applied_to_first(race, tools, known, technique)


def _applied_to_first(
    race: Race, tools: Toolbox, parents: Sequence[Variant], technique: Technique
) -> Iterator[Variant]:
    """Yield what a technique makes of the first variant that it does not refuse."""
    parent = next((each for each in parents if technique.refuses(each, race.shop.task) is None), None)
    if parent is not None:
        yield from _applied(race, tools, parent, Step(technique=technique.name))


def _applied(race: Race, tools: Toolbox, parent: Variant, step: Step, share: float = 1.0) -> Iterator[Variant]:
    """Yield what a step makes, on the settings that are best for each runtime."""
    made = race.made(parent, step, share)
    if made is not None:
        yield from _on_best(race, tools, made)


def _on_best(race: Race, tools: Toolbox, made: Variant) -> Iterator[Variant]:
    """Yield a variant on the settings that were best for each runtime with the given weights, or its first."""
    for runtime in tools.runtimes:
        best = settings_of(untouched_trials(race), runtime.name)[:2]
        tried = best or list(runtime.settings(race.machine, race.goal.workload))[:1]
        if made.settings.runtime == runtime.name and made.settings.precision not in {s.precision for s in tried}:
            tried = [made.settings, *tried]
        for settings in tried:
            if runtime.refuses(made.on(settings)) is None:
                yield made.on(settings)


def _doubtful(race: Race) -> Iterator[Trial]:
    """Yield the fastest trial of each technique that lost too much, or too much to be proven to lose no more.

    It must be faster, by enough to be worth a repair, than the best of those that will probably be proven.
    """
    done: set[str] = set()
    for trial in sorted(race.trials, key=race.score):
        best = min((race.score(t) for t in race.trials if t.state == "kept" and _provable(race, t)), default=np.inf)
        judged = trial.screening is not None and trial.quality is not None and not same_weights(trial.steps)
        broken = trial.state == "dropped" or (trial.state == "kept" and not _provable(race, trial))
        if not judged or not broken or race.score(trial) > best * _WORTH:
            continue
        if trial.steps[-1].technique not in done:
            done.add(trial.steps[-1].technique)
            yield trial


def _provable(race: Race, trial: Trial) -> bool:
    """Say whether a trial has a fair chance of being proven to lose no more than the goal allows."""
    if race.goal.max_drop is None or same_weights(trial.steps):
        return True
    hoped = hoped_loss(trial, race.shop.task, race.goal.max_drop)
    return hoped is None or trial.quality is None or -trial.quality.difference <= hoped


def _changed(race: Race, tools: Toolbox, trial: Trial) -> Iterator[Variant]:
    """Yield the last step of a trial again, one option changed at a time."""
    step, parent = trial.steps[-1], _parent(race, tools, trial)
    if parent is None:
        return
    chosen = {**plugins.defaults("techniques", step.technique), **dict(step.options)}
    for option, values in plugins.choices("techniques", step.technique).items():
        for value in values:
            if chosen[option] != value:
                again = options(dict(step.options), **{option: value})
                yield from _applied(race, tools, parent, Step(technique=step.technique, options=again))


def _on_its_settings(race: Race, tools: Toolbox, trial: Trial) -> Iterator[Variant]:
    """Yield the variant of a trial on all the settings of its runtime."""
    runtime = next((r for r in tools.runtimes if r.name == trial.settings.runtime), None)
    if runtime is not None and trial.variant is not None:
        yield from _settings(runtime, trial.variant, race.machine, race.goal)


def _settings(
    runtime: Runtime, variant: Variant, machine: Machine, goal: Goal, *, fusion: bool = True
) -> Iterator[Variant]:
    """Yield a variant on the settings of a runtime that it can run on, those with the engine's fusion on or off."""
    for settings in runtime.settings(machine, goal.workload):
        candidate = variant.on(settings)
        if settings.fusion == fusion and runtime.refuses(candidate) is None:
            yield candidate


def _one_each(candidates: Iterable[Variant]) -> Iterator[Variant]:
    """Yield the first candidate of each precision."""
    seen: set[str | None] = set()
    for candidate in candidates:
        if candidate.settings.precision not in seen:
            seen.add(candidate.settings.precision)
            yield candidate


def _useful(technique: Technique, goal: Goal) -> bool:
    """Say whether a technique can help the goal; one that `saves` a single reading helps only goals that name it."""
    saved = getattr(technique, "saves", None)
    return saved is None or saved in (goal.objective, *(limit.reading for limit in goal.limits))


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
    return race.variants.get(before) or next((each for each in sources(race, tools) if each.steps == before), None)


def kept_untouched(race: Race) -> list[Trial]:
    """Return the trials that run the weights as they were given and keep the goal so far, the best first."""
    return sorted((trial for trial in untouched_trials(race) if trial.state == "kept"), key=race.score)


def untouched_trials(race: Race) -> list[Trial]:
    """Return the trials that run the weights as they were given."""
    return [trial for trial in race.trials if same_weights(trial.steps)]


def settings_of(trials: Sequence[Trial], runtime: str) -> list[Settings]:
    """Return the settings of a runtime that these trials kept, the fastest first, one per precision.

    Those that were tried first, the runtime's defaults, give way only to what is faster beyond doubt: whatever is
    made later would otherwise run on the luckiest of them.
    """
    found: dict[str | None, tuple[Ratio, Settings]] = {}
    for trial in trials:
        if trial.state != "kept" or trial.screening is None or trial.settings.runtime != runtime:
            continue
        before = found.get(trial.settings.precision)
        if before is None or trial.screening.high < before[0].low:
            found[trial.settings.precision] = trial.screening, trial.settings
    return [settings for _, settings in sorted(found.values(), key=lambda pair: pair[0].value)]
