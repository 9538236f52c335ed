"""Searches over networks that are changed and trained again, then quantized: what `optimize --train` adds.

Every proposal is made and timed before anything is trained: its speed does not depend on its weights. Of those that
are fast enough the one that promises most for its cost is trained next (`halving`). Every second proposal changes what
promises most so far instead of the original, trained or not: so changes compose. The fastest of those that keep the
goal, or nearly do, are in the end handed to the techniques that need no training.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from trimtab.core.files import home
from trimtab.core.memo import remembered
from trimtab.core.protocols import Technique
from trimtab.core.values import Step, Trial, Variant, options
from trimtab.meters.compute import bound, work
from trimtab.meters.feed import timing_inputs
from trimtab.meters.size import size
from trimtab.search.cost import TrainingCost
from trimtab.search.halving import Candidate, Halving, rungs_of
from trimtab.search.predictor import Features, Predictor, features, where
from trimtab.search.proposals import Proposals
from trimtab.search.race import Race, made_name, marked, outpaced, trained

_POOL, _MOST_POOL, _POOL_S = 5, 12, 100.0  # untrained candidates to choose from: one for so many seconds, within limits
_MOST = 120  # proposals
_PROPOSING, _PROPOSING_MORE = 0.2, 0.3  # of the time at the start, and of what trainings took: for proposals
_TRAINING = 0.8  # of the time at the start; the rest is for quantizing what was trained
_FINISHED = 3  # of the fastest networks that were trained are quantized
_MAKING, _MAKING_S = 0.1, 60.0  # of the time left, at least so many seconds: for changing a network without training
_GRACE, _GRACE_S = 3.0, 60.0  # times the seconds expected of a training, and so many more, until it has to end
_NEARLY = 1.5  # times the loss that may be hoped to be proven: quantizing may still be worth it
_USUAL = 0.3  # of the original's work: what candidates usually do that are worth training
_BARREN = 3  # proposals of a technique that came to nothing, until it is proposed no more


@dataclass(slots=True, kw_only=True)
class Study:
    """The state of one such search.

    `finish` yields what the techniques that need no training make of a variant. `plain` are the steps and settings by
    which every candidate is timed: those of the best untouched variant.
    """

    race: Race
    makers: tuple[Technique, ...]
    trainer: Technique
    allowed: float
    plain: Trial
    finish: Callable[[Variant], Iterator[Variant]]
    said: Callable[[str], None]
    provable: Callable[[Trial], bool] = lambda trial: True
    rungs: tuple[float, ...] = ()
    halving: Halving = field(init=False)
    _proposals: Proposals = field(init=False)
    _predictor: Predictor = field(init=False)
    _current: dict[str, Variant] = field(default_factory=dict)
    _origin: dict[str, Step] = field(default_factory=dict)
    _barren: Counter[str] = field(default_factory=Counter)
    _twins: dict[str, str] = field(default_factory=dict)
    _cost: TrainingCost = field(init=False)
    _able: dict[str, tuple[float, Variant]] = field(default_factory=dict)
    _kept_s: float = 0.0
    _planned_s: float = 0.0
    _first: int = 0
    _most_s: float = 0.0
    _wanted: int = _POOL

    def __post_init__(self) -> None:
        race = self.race
        train = race.shop.task.split("train")
        assert train is not None
        folder = race.shop.folder.parent
        begun_s = remembered(folder / "study.json", float, race.budget.left)  # a run that goes on plans as it did
        self._kept_s = (1 - _TRAINING) * begun_s
        self._planned_s = _TRAINING * begun_s
        self._first, self._most_s = len(race.trials), _PROPOSING * self._planned_s
        self._wanted = int(min(max(_POOL, self._planned_s / _POOL_S), _MOST_POOL))
        self._cost = TrainingCost(len(train) * max(race.latency_s, 1e-6) / race.goal.workload.batch)
        rungs = self.rungs or rungs_of(self._cost.epoch_s(_USUAL), self._planned_s)
        self.halving = Halving(self.allowed, rungs, self._cost.setup_s)
        self._proposals = Proposals(folder / "study.log", [each.name for each in self.makers], race.seed)
        self._predictor = Predictor(home() / "latency" / f"{race.machine.digest[:16]}.jsonl")

    def variants(self) -> Iterator[Variant]:
        """Yield what is to be tried, until nothing is left that is worth the time."""
        while True:
            yield from self._propose()
            job = self.halving.next(self._best(), self._left())
            if job is None:
                break
            self.said(f"training {job.name}: {job.words()}")
            yield from self._train(job.name, job.rung)
        for _, learnt in sorted(self._able.values(), key=lambda each: each[0])[:_FINISHED]:
            yield from self.finish(learnt)

    def _left(self) -> float:
        """Return the seconds left for training."""
        return max(0.0, self.race.budget.left() - self._kept_s)

    def _spent_s(self, learnt: bool) -> float:
        """Return the seconds that went into proposals, or into training some, in an earlier part of a run as well."""
        tried = [trial for trial in self.race.trials[self._first :] if trained(trial.steps) == learnt]
        made = {trial.steps[:end] for trial in tried for end in range(1, len(trial.steps) + 1)}
        making = sum(self.race.making_s.get(steps, 0.0) for steps in made if trained(steps) == learnt)
        return making + sum(trial.seconds for trial in tried)

    def _best(self) -> float:
        """Return the time ratio of the fastest network so far that keeps the goal for good, quantized ones left out."""
        kept = (t for t in self.race.trials if t.state == "kept" and self._alike(t) and self.provable(t))
        return min((trial.screening.value for trial in kept if trial.screening is not None), default=1.0)

    def _alike(self, trial: Trial) -> bool:
        """Say whether a trial runs as the candidates are timed."""
        depth = len(self.plain.steps)
        exports = trial.steps[-depth:] if depth else ()
        return [s.technique for s in exports] == [s.technique for s in self.plain.steps] and (
            trial.settings == self.plain.settings
        )

    def _propose(self) -> Iterator[Variant]:
        """Yield proposals to be timed, until there are enough to choose from, or some and no more time for others."""
        while self._waiting() < self._wanted and self._left() > 0:
            if self._waiting() and self._spent_s(False) > self._most_s + _PROPOSING_MORE * self._spent_s(True):
                return
            if all(self._barren[each.name] >= _BARREN for each in self.makers):
                return
            step = self._proposals.next() if len(self._origin) < _MOST else None
            if step is None:
                return
            before, parent = self._proposals.failed_before(step), self._parent(step)
            name = made_name((*parent.steps, step))
            if before is None and self._barren[step.technique] >= _BARREN:
                self._proposals.fail(step)
                continue
            self._origin[name] = step
            if before:
                continue
            share = min(1.0, max(_MAKING, _MAKING_S / self.race.budget.left()))
            changed = self.race.made(parent, step, share)
            facts = None if changed is None else self._facts(changed)
            if changed is None:
                self._barren[step.technique] += 1
                self._tell(name)
                continue
            self._barren[step.technique] = -_MOST
            if (twin := self._twins.setdefault(changed.model.digest, name)) != name:
                self._tell(name, twin)
                continue
            if before is None and self._hopeless(name, facts):
                self._tell(name)
                continue
            trial = yield from self._tried(changed)
            if facts is not None and trial is not None and trial.screening is not None:
                self._predictor.learn(self._place, facts, trial.screening.value * self.race.latency_s)
            self._add(name, changed, trial)

    def _parent(self, step: Step) -> Variant:
        """Return what a proposal changes: the original, or every second time what promises most so far.

        That is the network that would be trained next, else the fastest that keeps the goal, or nearly; neither
        where the technique has changed it since it was trained, or makes a network of its own.
        """
        original = self.race.shop.original
        if len(self._origin) % 2 == 0 or marked(step, "afresh"):
            return original
        job = self.halving.next(self._best(), self._left())
        best = min(self._able.values(), key=lambda each: each[0], default=(1.0, original))[1]
        found = best if job is None else self._current[job.name]
        untrained = itertools.takewhile(lambda each: not marked(each, "trains"), reversed(found.steps))
        return original if step.technique in {each.technique for each in untrained} else found

    def _tell(self, name: str, twin: str = "") -> None:
        """Tell what became of a proposal, or of its twin; of changes to other networks than the original nothing."""
        candidate, step = self.halving.candidates.get(twin or name), self._origin[name]
        if name != step.label():
            self._proposals.forget(step)
        elif candidate is None:
            self._proposals.fail(step)
        else:
            self._proposals.tell(step, candidate.time, self.halving.final_loss(candidate.name))

    def _facts(self, changed: Variant) -> Features | None:
        """Return what the latency of a changed network depends on, None where it can't be counted."""
        race = self.race
        given = timing_inputs(changed, race.shop.task, race.goal.workload)
        shapes = {name: array.shape for name, array in given.items()}
        found = work(changed.model, bound(changed.model.signature, race.goal.workload, shapes))
        weights = next((each.value for each in size(changed.model) if each.name == "bytes"), None)
        return None if isinstance(found, str) or weights is None else features(found, weights)

    @property
    def _place(self) -> str:
        """What must be the same for a latency that was measured to tell about another network's."""
        exports = [step.technique for step in self.plain.steps]
        return " ".join([where(self.plain.settings, self.race.goal.workload), *exports])

    def _hopeless(self, name: str, facts: Features | None) -> bool:
        """Say whether a network is expected, beyond doubt, to take more time than the best so far: not even timed."""
        expected = None if facts is None else self._predictor.predict(self._place, facts)
        if expected is None or expected.low <= self._best() * self.race.latency_s:
            return False
        self.said(
            f"not tried: {name}: it is expected to take {expected.seconds * 1e3:.3g} ms ({expected.low * 1e3:.3g}–"
            f"{expected.high * 1e3:.3g}, by {expected.seen} networks timed on this machine), more than the best so far"
        )
        return True

    def _waiting(self) -> int:
        """Return how many candidates there are that were not trained yet and may be faster than the best."""
        best = self._best()
        return sum(not each.losses and not each.out and each.time < best for each in self.halving.candidates.values())

    def _add(self, name: str, changed: Variant, trial: Trial | None) -> None:
        """Take in a proposal that was timed."""
        macs, original = self._macs(trial), self._macs(self.race.trials[0])
        if trial is None or trial.screening is None or not macs or not original:
            self._tell(name)
            return
        work = macs / original
        candidate = Candidate(
            name=name,
            time=trial.screening.value,
            work=work,
            epoch_s=self._cost.epoch_s(work),
            before=None if trial.quality is None else -trial.quality.difference,
        )
        self._current[name] = changed
        self.halving.add(candidate)
        self._consider(name, changed, trial)  # refitted, it may need no training at all
        if candidate.time >= self._best():
            self.halving.drop(name)
            self._tell(name)

    def _tried(self, variant: Variant) -> Generator[Variant, None, Trial | None]:
        """Yield a variant as candidates are timed, and return its trial."""
        for step in self.plain.steps:
            made = self.race.made(variant, Step(technique=step.technique, options=step.options))
            if made is None:
                return None
            variant = made
        candidate = variant.on(self.plain.settings)
        yield candidate
        return next((trial for trial in self.race.trials if trial.name == candidate.label()), None)

    def _train(self, name: str, rung: int) -> Iterator[Variant]:
        """Yield what training a candidate on a rung makes of it, and note it where quantizing may be worth it."""
        candidate, epochs = self.halving.candidates[name], self.halving.rungs[rung]
        begun = any(each.losses for each in self.halving.candidates.values())
        teacher_s = 0.0 if begun else self._cost.answer_s  # whose answers the first training waits for
        most = _GRACE * (self._cost.setup_s + candidate.epoch_s * epochs) + _GRACE_S + teacher_s
        share = min(1.0, most / max(self.race.budget.left(), 1e-9))
        chosen = {"epochs": max(1, round(epochs)), "share": min(1.0, epochs)}
        usual = {"share": 1.0}
        step = Step(
            technique=self.trainer.name,
            options=options({key: value for key, value in chosen.items() if usual.get(key) != value}),
        )
        learnt = self.race.made(self._current[name], step, share)
        if learnt is None:
            self.halving.drop(name)
            return
        self._current[name] = learnt
        trial = yield from self._tried(learnt)
        if trial is None or trial.quality is None:
            self.halving.drop(name)  # it failed, or is slower than it was and outpaced
            return
        loss = -trial.quality.difference
        self.halving.told(name, loss)
        if trial.screening is not None:
            candidate.time = math.sqrt(candidate.time * trial.screening.value)  # timed twice, known better
        if trial.state == "kept" and self.provable(trial):
            self.halving.drop(name)  # it keeps the goal: what more could training bring
        if begun:  # the first one waited for the teacher as well
            self._correct(candidate, epochs, self.race.making_s.get(learnt.steps, 0.0))
        if rung == 0:
            self._tell(name)
        self._consider(name, learnt, trial)

    def _consider(self, name: str, made: Variant, trial: Trial) -> None:
        """Note a network that keeps the goal, or nearly: quantizing it may be worth it."""
        if trial.screening is None or trial.quality is None or outpaced(trial):
            return
        if -trial.quality.difference <= _NEARLY * self.allowed:
            self._able[name] = (trial.screening.value, made)

    def _correct(self, candidate: Candidate, epochs: float, seconds: float) -> None:
        """Correct what training is expected to cost by what this one did, and plan the rungs above by that."""
        self._cost.learn(candidate.work, epochs, seconds)
        self.halving.setup_s = self._cost.setup_s
        for each in self.halving.candidates.values():
            each.epoch_s = self._cost.epoch_s(each.work)
        if not self.rungs:
            left = max(0.0, self._planned_s - self._spent_s(True) - self._spent_s(False))
            self.halving.extend(rungs_of(self._cost.epoch_s(_USUAL), left))

    def _macs(self, trial: Trial | None) -> float | None:
        return trial.measurement.value("macs") if trial is not None and trial.measurement is not None else None
