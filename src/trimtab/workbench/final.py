"""The end of an optimization: proof, final timing against both baselines, measurements, verdict, bundle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import trimtab
from trimtab.core.errors import BadInput, MissingExtra, WorkerError
from trimtab.core.machine import during
from trimtab.core.machine import machine as this_machine
from trimtab.core.protocols import Store
from trimtab.core.values import (
    Certificate,
    Comparison,
    Goal,
    Measurement,
    NoWorse,
    Options,
    Ratio,
    Reading,
    Result,
    Trial,
    TrialState,
    options,
)
from trimtab.core.words import reading_name
from trimtab.data.batches import groups as groups_of
from trimtab.data.batches import labels as labels_of
from trimtab.meters.latency import PERCENTILES
from trimtab.meters.quality import quality_readings
from trimtab.reports.verdict import verdict
from trimtab.reports.words import amount
from trimtab.search.limits import broken_limit, quality_limits, unread_limit
from trimtab.search.race import TIMED, Race, foreign_meters
from trimtab.serving.bundle import runs_code, write_bundle
from trimtab.serving.evidence import write_evidence
from trimtab.stats.percentiles import samples_needed
from trimtab.workbench.instead import instead
from trimtab.workbench.ledger import looks
from trimtab.workbench.measure import measure, with_compression
from trimtab.workbench.playoff import memory_room
from trimtab.workbench.proof import answers_on, finalists, prove, prove_all
from trimtab.workbench.timing import Timing, TimingPlan, time_trials

_LONGEST = {"latency": 5.0, "throughput": 10.0, "end-to-end": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the search hands over: the race, the best untouched trial, and what must be told.

    `verify` is the command line that runs the certificate again, `play_off_s` what timing the leaders again took, and
    `store` keeps the measurements of the finalists.
    """

    race: Race
    folder: Path
    untouched: Trial
    warnings: tuple[str, ...]
    command: str
    verify: str
    play_off_s: float = 0.0
    store: Store | None = None
    notes: tuple[str, ...] = ()


def conclude(ending: Ending, output: Path) -> Result:
    """Prove, time, measure, choose, and write the bundle of the winner."""
    race = ending.race
    race.close()
    clock = _Clock()
    chosen = finalists(race, ending.untouched)
    race.progress.stage("proving on items the search never saw")
    proofs = prove_all(race, chosen, ending.folder)
    protected = race.goal.max_drop is not None
    proven = [t for t in chosen if not protected or (t.name in proofs and proofs[t.name].proven)]
    clock.lap("proving")
    race.progress.stage("final timing: fresh processes, in turn, against both baselines")
    field, left_out = _field(ending, proven)
    field, timing = _timed(ending, field)
    warnings = (*ending.warnings, *left_out, *timing.warnings())
    ending = replace(ending, untouched=_best_untouched(ending, field, timing), warnings=warnings)
    clock.lap("final timing")
    race.progress.stage("measuring the finalists")
    final = Final(
        ending=ending,
        field=tuple(field),
        timing=timing,
        proofs=proofs,
        proven=tuple(t.name for t in proven),
        chosen=tuple(t.name for t in chosen),
    )
    winner, measurements, reason = choose(final)
    clock.lap("measuring")
    result = _result(final, winner, measurements, reason, clock)
    if winner is not None:
        _write(final, winner, measurements, result, output)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The final run: the trials that took part (as given first, best untouched second), their times and proofs."""

    ending: Ending
    field: tuple[Trial, ...]
    timing: Timing
    proofs: dict[str, NoWorse]
    proven: tuple[str, ...]
    chosen: tuple[str, ...]

    @property
    def race(self) -> Race:
        """The race that ended."""
        return self.ending.race

    @property
    def untouched(self) -> int:
        """The place of the best untouched trial in the field."""
        return self.place(self.ending.untouched)

    def place(self, trial: Trial) -> int:
        """Return the place of a trial in the field."""
        return [each.name for each in self.field].index(trial.name)

    def over_given(self, index: int) -> Ratio:
        """Return the time ratio of a trial to the model as given."""
        return self.timing.ratio(index, 0)

    def over_untouched(self, index: int) -> Ratio:
        """Return the time ratio of a trial to the best untouched variant."""
        return self.timing.ratio(index, self.untouched)


def choose(final: Final) -> tuple[Trial | None, dict[str, Measurement], str]:
    """Return the winner, the measurements made, and why there is no winner.

    Contenders are measured in the order of the goal until one keeps all limits; both baselines are measured always.
    One that can't be measured has failed, and the next one is asked.
    """
    measured: dict[str, Measurement] = {}
    for baseline in dict.fromkeys((0, final.untouched)):
        _measure(final, final.field[baseline], measured)
    reasons: list[str] = []
    for index in _in_order(final):
        trial = final.field[index]
        _measure(final, trial, measured)
        if trial.name not in measured:
            continue
        readings = measured[trial.name].readings
        broken = broken_limit(readings, final.race.goal.limits) or unread_limit(readings, final.race.goal.limits)
        if broken is None:
            return trial, measured, ""
        reasons.append(f"{trial.name}: {broken}")
    reasons += [f"{name}: {proof.reason}" for name, proof in final.proofs.items() if not proof.proven]
    return None, measured, "; ".join(reasons or ["nothing tried kept the goal"])


def _in_order(final: Final) -> list[int]:
    """Return the places of those that may win, the best first.

    A changed model must be faster beyond doubt than the best untouched one to go before it. The model as given may
    win only when nothing that was better went unproven: then nobody knows whether the goal could have been met.
    """
    race, timed = final.race, final.race.goal.objective in TIMED
    given = final.field[0].name
    undecided = set(final.chosen) - set(final.proven) - race.failed
    able = ({*final.proven} - {given} if undecided else {*final.proven, given}) - race.failed
    places = [i for i, trial in enumerate(final.field) if trial.name in able]
    if not timed:
        return sorted(places, key=lambda i: race.score(final.field[i]))
    places.sort(key=lambda i: final.over_given(i).value)
    sure = [i for i in places if i != final.untouched and final.over_untouched(i).verdict == "faster"]
    plain = [i for i in places if i == final.untouched]
    rest = [i for i in places if i not in sure and i not in plain]
    if not race.goal.limits:  # without limits to keep there is no reason to take what isn't faster
        rest = [i for i in rest if i == 0]
    return sure + plain + rest


def _best_untouched(ending: Ending, field: Sequence[Trial], timing: Timing) -> Trial:
    """Return the better of the two untouched ones as the final timing sees them: one slower than given is no best."""
    names = [trial.name for trial in field]
    if ending.untouched.name not in names:  # it failed
        return field[0]
    if ending.race.goal.objective not in TIMED:
        return ending.untouched
    return field[0] if timing.ratio(names.index(ending.untouched.name), 0).value > 1 else ending.untouched


def _field(ending: Ending, proven: Sequence[Trial]) -> tuple[list[Trial], list[str]]:
    """Return who is timed at the end, and what must be told: both baselines, and as many as there is memory for."""
    race = ending.race
    plain = {t.name: t for t in (race.trials[0], ending.untouched) if t.name not in race.failed}
    others = sorted((trial for trial in proven if trial.name not in plain), key=race.score)
    most = max(1, int(min(memory_room(race) - len(plain) + 1, len(others))))
    left_out = [f"{t.name} was proven but not timed at the end: there was no memory for it" for t in others[most:]]
    return [*plain.values(), *others[:most]], left_out


def _measure(final: Final, trial: Trial, measured: dict[str, Measurement]) -> None:
    """Add every reading of a finalist; one that can't be measured has failed. The model as given, the first, must."""
    if trial.name in measured or trial.name in final.race.failed:
        return
    try:
        measured[trial.name] = _read(final, trial, measured)
    except (WorkerError, BadInput, MissingExtra) as error:
        if trial.name == final.field[0].name:
            raise
        final.race.fail(trial, f"failed when it was measured: {error}")


def _read(final: Final, trial: Trial, measured: dict[str, Measurement]) -> Measurement:
    """Return every reading of a finalist, quality on the certify split included; kept in the run's folder."""
    race, folder = final.race, final.ending.folder
    assert trial.variant is not None
    race.progress.begin(f"measuring {trial.name}", race.budget.elapsed(), race.budget.seconds)
    found = measure(
        trial.variant,
        race.shop.task,
        race.goal.workload,
        meters=_meters(race),
        store=final.ending.store,
        machine=race.machine,
        log=folder / "logs" / "measuring.log",
    )
    found = with_compression(found, measured.get(final.field[0].name, found))
    others = [reading for reading in found.readings if reading.name != "latency_p50"]
    readings = (final.timing.latency(final.place(trial)), *others, *_quality(final, trial))
    return replace(found, readings=readings)


def _meters(race: Race) -> dict[str, Options]:
    """Return what a finalist is read with; the longer meters take a share of the budget, up to their usual time.

    Where a limit is on a percentile of latency, as many calls are made as that takes.
    """
    share = race.budget.seconds / 600
    found: dict[str, Options] = {"size": (), "compute": (), "memory": (), **dict.fromkeys(foreign_meters(), ())}
    for name, longest in _LONGEST.items():
        if name != "end-to-end" or race.shop.task.splits:
            found[name] = options(seconds=round(max(0.25 * longest, min(longest, longest * share)), 2))
    if (told := _percentile(race)) is not None:
        found["latency"] = options(dict(found["latency"]), percentile=told)
    return found


def tail_s(race: Race) -> float:
    """Return about how long the calls take that a limit on a percentile needs, of both baselines and a winner."""
    told = _percentile(race)
    return 0.0 if told is None else 3 * samples_needed(told) * race.latency_s


def _percentile(race: Race) -> float | None:
    """Return the highest percentile of latency that a limit is on, None where none is."""
    limits = race.goal.limits
    return max((PERCENTILES[limit.reading] for limit in limits if limit.reading in PERCENTILES), default=None)


def _quality(final: Final, trial: Trial) -> Sequence[Reading]:
    """Return the quality of a proven finalist on the certify split, which it has answered already.

    Where nothing is to be proven it answers for the limits that are on quality.
    """
    race, folder = final.race, final.ending.folder
    split = race.shop.task.split("certify")
    baselines = (final.field[0].name, final.ending.untouched.name)
    judged = trial.name in final.proofs or trial.name in baselines or quality_limits(race.goal.limits)
    if split is None or trial.variant is None or not judged:
        return ()
    task, goal = race.shop.task, race.goal
    original = answers_on(task, split, race.shop.original, goal, folder)
    outputs = answers_on(task, split, trial.variant, goal, folder)
    return quality_readings(task, labels_of(split), outputs, original, groups_of(split), "certify split")


def _timed(ending: Ending, field: Sequence[Trial]) -> tuple[list[Trial], Timing]:
    race = ending.race
    left = race.budget.seconds - race.budget.elapsed()
    seconds = float(np.clip(0.5 * left, 8.0, 90.0))
    plan = TimingPlan(folder=ending.folder / "timing", seconds=seconds, margin=race.goal.margin, seed=race.seed)
    return time_trials(race, field, plan, ending.untouched)


def _result(final: Final, winner: Trial | None, measured: dict[str, Measurement], reason: str, clock: _Clock) -> Result:
    race, ending = final.race, final.ending
    certificate = None if winner is None else certify(final, winner)
    place = None if winner is None else final.place(winner)
    ratios = [final.over_given(i) for i in range(1, len(final.field))]
    ratios += [final.over_untouched(i) for i in range(1, len(final.field)) if i != final.untouched != 0]
    comparison = Comparison(
        measurements=tuple(measured[trial.name] for trial in final.field if trial.name in measured),
        ratios=tuple(ratios),
        quality=tuple(final.proofs.values()),
        self_test=final.timing.self_test(),
    )
    sentence = verdict(
        race.goal,
        winner=winner,
        over_given=final.over_given(place) if place else None,
        over_untouched=None if place is None or place == final.untouched else final.over_untouched(place),
        certificate=certificate,
        reason=reason,
        before=_improved(race.goal, measured, race.trials[0]),
        after=_improved(race.goal, measured, winner),
    )
    making = 0.0 if winner is None else race.journal.cost(winner)
    spent = {"searching": race.journal.seconds, "of it for the winner": making, "play-off": ending.play_off_s}
    trials = _with_proofs(final)
    split = None if race.goal.max_drop is None else race.shop.task.split("certify")
    named = {trial.name: trial for trial in trials}
    return Result(
        goal=race.goal,
        task=race.shop.task,
        verdict=sentence,
        as_given=trials[0],
        untouched=named[ending.untouched.name],
        trials=trials,
        comparison=comparison,
        winner=winner.name if winner else None,
        certificate=certificate,
        machine=during(race.machine, this_machine()),
        spent=(*spent.items(), *clock.laps.items()),
        warnings=ending.warnings,
        notes=(*ending.notes, *(() if winner is None else instead(race, winner, ending.folder))),
        looks=0 if split is None else looks(split),
        command=ending.command,
        version=trimtab.__version__,
    )


def _improved(goal: Goal, measured: dict[str, Measurement], trial: Trial | None) -> Reading | None:
    """Return what the goal improves as read of a trial, None where it is a latency: ratios tell that better."""
    name = reading_name(goal.objective)
    if trial is None or trial.name not in measured or name.startswith("latency"):
        return None
    return measured[trial.name].reading(name)


def certify(final: Final, winner: Trial) -> Certificate | None:
    """Return the certificate of the winner, None when nothing was there to prove it with."""
    proof, race = final.proofs.get(winner.name), final.race
    split = race.shop.task.split("certify")
    if split is None or winner.variant is None:
        return None
    if proof is None and final.place(winner) == 0 and race.goal.max_drop is not None:
        proof = prove(race, winner.variant, split, final.ending.folder)  # no worse than itself
    if proof is None:
        return None
    place = final.place(winner)
    baselines = dict.fromkeys((0, final.untouched))
    trust = " --trust-pickle" * runs_code(winner.variant.model, race.shop.task)
    claim = (
        f"with {100 * (1 - proof.error):g} % confidence {proof.metric} is at most "
        f"{amount(proof.max_drop, proof.metric)} worse than the original's, on items like the {proof.items} of the "
        "certify split"
    )
    return Certificate(
        claim=claim,
        no_worse=proof,
        ratios=tuple(final.timing.ratio(place, baseline) for baseline in baselines if baseline != place),
        data=split.digest,
        original=race.shop.original.key,
        looks=looks(split),
        seed=race.seed,
        machine=race.machine,
        command=final.ending.verify + trust * (trust not in final.ending.verify),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _with_proofs(final: Final) -> tuple[Trial, ...]:
    """Return the trials with what the proof made of the finalists."""
    found = []
    for trial in final.race.trials:
        proof = final.proofs.get(trial.name)
        if trial.state == "failed":
            trial = replace(trial, quality=proof or trial.quality)
        elif proof is not None:
            state: TrialState = "proven" if proof.proven else "unproven"
            trial = replace(trial, state=state, reason=proof.reason or trial.reason, quality=proof)
        elif trial.name in final.chosen and final.race.goal.max_drop is not None:
            trial = replace(trial, state="unproven", reason="not tested: a safer variant before it was not proven")
        found.append(trial)
    return tuple(found)


def _write(final: Final, winner: Trial, measured: dict[str, Measurement], result: Result, output: Path) -> None:
    """Write the bundle, and with a certificate the evidence that lets others run it again."""
    race = final.race
    assert winner.variant is not None
    write_bundle(
        output,
        winner.variant,
        race.shop.task,
        measurement=measured[winner.name],
        certificate=result.certificate,
        machine=race.machine,
        version=trimtab.__version__,
    )
    split = race.shop.task.split("certify")
    if result.certificate is not None and split is not None:
        original = answers_on(race.shop.task, split, race.shop.original, race.goal, final.ending.folder)
        write_evidence(output, split, original)


class _Clock:
    """Notes how long each part took."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now
