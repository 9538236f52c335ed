"""Proposes how to change a network: Optuna draws the technique and its options, by what became of earlier proposals."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trimtab.core import plugins
from trimtab.core.errors import MissingExtra
from trimtab.core.protocols import Range
from trimtab.core.values import Scalar, Step, options

_AT_RANDOM = 8  # proposals, the first ones included, before the sampler learns from what became of them
_FIRST = (0.25, 0.75)  # where in the range of its numbers every technique is proposed first
_NOTHING = [0.0, 1.0]  # log time and loss of a proposal that nothing came of: no faster, and nothing right
_PATIENCE = 50  # proposals in turn that were made before, until there is nothing new to propose


class Proposals:
    """A study in the folder of a run: what was proposed before is handed out again first, in its order.

    The numbers that techniques mark with `Range` and the words that they mark with `Choices` are proposed by the
    tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023) for two ends: less time, less loss; before
    that every technique a quarter, then three quarters up the range of its numbers. Several processes may propose to
    one study.
    """

    def __init__(self, path: Path, techniques: Sequence[str], seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingExtra("optuna", "train", "searching over trained networks") from error
        optuna.logging.set_verbosity(logging.WARNING)
        self._optuna, self._techniques = optuna, tuple(techniques)
        path.parent.mkdir(parents=True, exist_ok=True)
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            sampler=optuna.samplers.TPESampler(n_startup_trials=_AT_RANDOM, seed=seed, constant_liar=True),
            directions=["minimize", "minimize"],
            study_name="trimtab",
            load_if_exists=True,
        )
        if not self._study.get_trials(deepcopy=False):
            self._begin()
        self._numbers: dict[Step, int] = {}
        self._before: dict[Step, bool] = {}
        self._steps = self._proposed()

    def next(self) -> Step | None:
        """Return a step that was not proposed before in this process, None where there is nothing new to propose."""
        return next(self._steps, None)

    def failed_before(self, step: Step) -> bool | None:
        """Say whether nothing came of a proposal of an earlier process; None where it is of this one."""
        return self._before.get(step)

    def tell(self, step: Step, time: float, loss: float) -> None:
        """Tell what became of a proposal: its time ratio and its loss."""
        if math.isfinite(time) and math.isfinite(loss) and time > 0:
            self._study.tell(self._numbers[step], [math.log(time), loss], skip_if_finished=True)
        else:
            self.fail(step)

    def fail(self, step: Step) -> None:
        """Tell that nothing came of a proposal, so that others like it are proposed less."""
        self._study.tell(self._numbers[step], _NOTHING, skip_if_finished=True)

    def forget(self, step: Step) -> None:
        """Let nothing be learnt of a proposal."""
        trial = self._numbers[step]
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _begin(self) -> None:
        """Queue what is proposed first."""
        for share in _FIRST:
            for name in self._techniques:
                spans = plugins.ranges("techniques", name)
                usual = plugins.defaults("techniques", name)
                kept = {key: usual[key] for key, values in plugins.choices("techniques", name).items()
                        if usual[key] in values}  # fmt: skip
                numbers = {key: _at(span, share) for key, span in spans.items()}
                given = {f"{name}.{key}": value for key, value in (kept | numbers).items()}
                self._study.enqueue_trial({"technique": name, **given})

    def _proposed(self) -> Iterator[Step]:
        for trial in self._study.get_trials(deepcopy=False):
            step = self._read(trial.params)
            if step is not None and step not in self._numbers:
                self._numbers[step] = trial.number
                self._before[step] = trial.values == _NOTHING
                yield step
        known = 0
        while known < _PATIENCE:
            asked = self._study.ask()
            step = self._drawn(asked)
            if step in self._numbers:
                known += 1
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
                continue
            known = 0
            self._numbers[step] = asked.number
            yield step

    def _drawn(self, trial: Any) -> Step:
        """Return the step that a trial of the study stands for."""
        name = trial.suggest_categorical("technique", self._techniques)
        found: dict[str, Scalar] = {}
        for option, span in plugins.ranges("techniques", name).items():
            value = trial.suggest_float(f"{name}.{option}", span.low, span.high, step=span.step)
            found[option] = float(f"{value:.4g}")  # a sum of steps is not as a person would type it
        for option, values in plugins.choices("techniques", name).items():
            found[option] = trial.suggest_categorical(f"{name}.{option}", values)
        return self._step(name, found)

    def _read(self, params: dict[str, Any]) -> Step | None:
        """Return the step of a trial of an earlier process; None where that was killed before it was drawn."""
        name = params.get("technique")
        if name is None:
            return None
        found = {key.partition(".")[2]: value for key, value in params.items() if key != "technique"}
        wanted = {*plugins.ranges("techniques", name), *plugins.choices("techniques", name)}
        if wanted != set(found):
            return None
        read = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}
        return self._step(name, read)

    @staticmethod
    def _step(name: str, chosen: dict[str, Scalar]) -> Step:
        usual = plugins.defaults("techniques", name)
        return Step(
            technique=name, options=options({key: value for key, value in chosen.items() if value != usual[key]})
        )


def _at(span: Range, share: float) -> float:
    """Return the number that is a share of the way up a range, on one of its steps."""
    steps = round(share * (span.high - span.low) / span.step)
    return span.low + steps * span.step
