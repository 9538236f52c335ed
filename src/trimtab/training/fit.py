"""The fit loop: trains a PyTorch module on the train split, validates it on the select split, keeps the best."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.protocols import Array
from trimtab.core.values import Signature, Task, content_digest
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch_tracing import import_torch
from trimtab.training import checkpoint
from trimtab.training.augment import Augment, mixed
from trimtab.training.checkpoint import Epoch, Position
from trimtab.training.items import Keeping, kept_items
from trimtab.training.loader import Batch, Loader
from trimtab.training.losses import Loss, l1_norm
from trimtab.training.network import Network, seeded, tensors_of, told
from trimtab.training.optimizers import Optimizer, decayed
from trimtab.training.recipe import Recipe
from trimtab.training.schedules import share_of_rate
from trimtab.training.teacher import Teacher

Score = Callable[[Array], float]
"""Tells how good the outputs on the select split are; higher is better."""

Hold = Callable[[float], bool]
"""Changes the weights after every step, at that many epochs; says whether they are now as they shall be in the end."""

_CHECKPOINT_S = 60.0
_BRAKE, _BRAKES = 0.5, 3  # by how much, and how often, a diverging fit is slowed before it is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a fit went: its epochs, the number of the one whose weights the module has now, and what happened.

    `finished` is False where the time was up first: the same call goes on from the checkpoint. `keeping` tells how the
    items were kept where they were not left as given.
    """

    history: tuple[Epoch, ...]
    best: int | None
    notes: tuple[str, ...]
    finished: bool
    keeping: Keeping | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where and how long a fit runs, and who hears of every epoch.

    `folder` keeps the checkpoint, `start` names what the fit begins with (the digests of the model and its teachers),
    `teacher` answers where the recipe distils, `deadline` is in `time.monotonic()` seconds. `begun` hears once of the
    epochs that were there before, `heard` of every one that ends from then on. `hold`
    keeps the weights to a constraint; only epochs that end with it kept can be the best.
    """

    folder: Path
    start: str
    teacher: Teacher | None = None
    deadline: float = math.inf
    begun: Callable[[tuple[Epoch, ...]], None] = lambda history: None
    heard: Callable[[Epoch], None] = lambda epoch: None
    hold: Hold = lambda epochs: True


def fit(module: Any, signature: Signature, task: Task, recipe: Recipe, score: Score, course: Course) -> Fitted:
    """Train a module in place; in the end it has the weights of the epoch that was validated best.

    Args:
        module: a `torch.nn.Module`, called by the names of the signature.
        signature: its inputs and outputs.
        task: the data; a fit needs a train and a select split with labels.
        recipe: how it is trained.
        score: judges the outputs on the select split; higher is better.
        course: where the checkpoint is kept, and until when the fit may run.

    Raises:
        BadInput: there is nothing to train on, or the checkpoint is of another fit.
        TrimtabError: the loss diverges at every learning rate that was tried.
    """
    train, select = task.split("train"), task.split("select")
    if train is None:
        raise BadInput("there are no items to train on: give them with --train, or name some of the data train")
    if select is None:
        raise BadInput("there are no items to choose the best epoch by: give them with --data")
    items, keeping = kept_items(task, train, recipe.store, course.folder / "items", recipe.batch)
    loader = Loader(task, train, recipe.batch, recipe.seed, items=items, count=math.ceil(recipe.share * len(train)))
    if not len(loader):
        found = "there is 1 item" if len(train) == 1 else f"there are {len(train)} items"
        raise BadInput(
            f"{found} to train on: a step takes at least two, and a fit a few hundred; give more with --train, or "
            "let trimtab optimize do what needs no training"
        )
    if recipe.taught and course.teacher is None:
        raise BadInput("distill and hints need a teacher: name one with --teacher")
    network = Network(module, signature, task, recipe, getattr(course.teacher, "modules", ()))
    key = content_digest(course.start, repr(signature), task.digest, recipe.options(), checkpoint.FORM)
    loss = Loss(task, recipe, labels_of(train))
    work = _Fit(network, loader, loss, recipe, course, key)

    def judge() -> float | None:
        outputs = network.predict(task, select)
        return score(outputs) if np.isfinite(outputs).all() else None

    work.begin()
    finished = True
    try:
        while finished and not work.over():
            finished = work.epoch(judge)
    except BadInput:
        work.forget()
        raise
    return replace(work.end(finished), keeping=keeping)


class _Diverged(ArithmeticError):
    """The loss, or what the network answers, is not a number any more."""


class _Fit:
    """The state of a fit, and the steps that change it."""

    def __init__(self, network: Network, loader: Loader, loss: Loss, recipe: Recipe, course: Course, key: str) -> None:
        self._torch = import_torch("training")
        self._network, self._loader, self._loss, self._recipe = network, loader, loss, recipe
        self._course, self._key = course, key
        self._augment = Augment(recipe.augmentations)
        self._optimizer = Optimizer(network.trained, recipe)
        self._place = Position()
        self._best: dict[str, Any] = {}
        self._held = False

    def begin(self) -> None:
        """Go on from the checkpoint, or begin with one: whatever happens, there is a state to go back to."""
        if not self._restored():
            if not self._network.finite():
                raise BadInput("the weights hold NaN or infinity before any training; give others with --weights")
            seeded(self._recipe.seed)
            self._save()
        self._held = self._course.hold(self._place.epoch + self._place.batch / len(self._loader))
        self._course.begun(self._place.history)

    def over(self) -> bool:
        """Say whether the last epoch is done, or none was better than the best for too long."""
        place, patience = self._place, self._recipe.patience
        waited = place.epoch - (place.best or 0)
        return place.epoch >= self._recipe.epochs or (
            patience is not None and place.best is not None and waited >= patience
        )

    def epoch(self, judge: Callable[[], float | None]) -> bool:
        """Train to the end of the epoch and validate it, or go back where that fails; return False when time is up."""
        try:
            ended = self._validated(judge()) if self._train() else None
            self._save()
        except _Diverged as error:
            self._go_back(str(error))
            return True
        if ended is not None:
            self._course.heard(ended)
        return ended is not None

    def _train(self) -> bool:
        """Take the steps that are left of the epoch, or those that the deadline leaves; return whether it has ended."""
        self._network.module.train()
        clocks, saved = self._clocks(), time.monotonic()
        for batch in self._loader.epoch(self._place.epoch, self._place.batch):
            loss = self._step(batch)
            place = self._place
            self._place = replace(place, batch=place.batch + 1, steps=place.steps + 1, loss_sum=place.loss_sum + loss)
            self._switch_if_due()
            now = time.monotonic()
            if now >= self._course.deadline:
                break
            if now - saved > _CHECKPOINT_S:
                self._spend(clocks)
                self._save()
                clocks, saved = self._clocks(), time.monotonic()
        self._spend(clocks)
        return self._place.batch == len(self._loader)

    def _step(self, batch: Batch) -> float:
        """Take one step of the optimizer on a batch and return its mean loss."""
        recipe, place = self._recipe, self._place
        total = 0.0
        for part in _parts(batch, recipe.batch // recipe.accumulate):
            loss = self._loss_of(part) * (len(part.rows) / len(batch.rows))
            with told("the network can't be trained"):
                loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise _Diverged(f"the loss was {total} in epoch {place.epoch + 1}, step {place.steps + 1}")
        if recipe.clip is not None:
            self._torch.nn.utils.clip_grad_norm_(self._network.trained.parameters(), recipe.clip)
        done = place.epoch + (place.batch + 1) / len(self._loader)
        self._optimizer.step(share_of_rate(recipe, done) * place.brake)
        self._optimizer.clear()
        self._held = self._course.hold(done)
        self._network.average()
        return total

    def _loss_of(self, batch: Batch) -> Any:
        """Return the loss of a batch with its graph: augmented, against labels and teacher, with the L1 penalty."""
        recipe, tensors, share = self._recipe, tensors_of(batch.feed), 1.0
        labels = None if batch.labels is None else self._torch.from_numpy(np.ascontiguousarray(batch.labels))
        other = labels
        if recipe.augmentations:
            images = next((name for name, x in tensors.items() if x.ndim == 4 and x.is_floating_point()), None)
            if images is None:
                raise BadInput(
                    "augmentation needs images [items, channels, height, width] of fractions; leave augment out"
                )
            tensors[images] = self._augment(tensors[images])
            if "mixup" in recipe.augmentations:
                tensors[images], order, share = mixed(tensors[images])
                other = None if labels is None else labels[order]
        outputs, loss = self._network.answer(tensors), 0.0
        with told("what the network answers can't be compared with what it should answer"):
            if labels is not None and recipe.distill < 1:
                loss = share * self._loss(outputs, labels)
                if share < 1:
                    loss = loss + (1 - share) * self._loss(outputs, other)
            if recipe.taught and self._course.teacher is not None:
                answers = self._course.teacher(batch.rows, tensors)
                if recipe.distill:
                    loss = (1 - recipe.distill) * loss + recipe.distill * self._loss.taught(outputs, answers)
                loss = loss + recipe.hint_weight * self._network.hinted(tensors)
        return loss + recipe.l1 * l1_norm(decayed(self._network.module)) if recipe.l1 else loss

    def _validated(self, score: float | None) -> Epoch:
        """End the epoch with its score, None where there is none, and return what is known of it."""
        place = self._place
        if score is None:
            raise _Diverged(f"the outputs were not finite after epoch {place.epoch + 1}")
        seconds, cpu_s, waited_s = place.spent
        epoch = Epoch(
            number=place.epoch + 1,
            steps=place.steps,
            loss=place.loss_sum / place.batch,
            score=score,
            rate=self._optimizer.rate * share_of_rate(self._recipe, place.epoch + 1) * place.brake,
            optimizer=self._optimizer.name,
            seconds=seconds,
            cpu_s=cpu_s,
            waited_s=waited_s,
            read_s=place.read_s,
        )
        best = place.best
        if self._held and (best is None or score > place.history[best - 1].score):
            best, self._best = epoch.number, self._network.weights()
        self._place = replace(
            place,
            epoch=epoch.number,
            batch=0,
            loss_sum=0.0,
            spent=(0.0, 0.0, 0.0),
            read_s=0.0,
            best=best,
            history=(*place.history, epoch),
        )
        self._switch_if_due()
        return epoch

    def _save(self) -> None:
        """Write the checkpoint of a state that is worth going back to."""
        if not self._network.finite():
            raise _Diverged(f"the weights were not finite after step {self._place.steps:,}")
        parts = {
            **self._network.state(),
            "optimizer": self._optimizer.state(),
            "best": self._best,
            "random": {"state": self._torch.get_rng_state()},
        }
        checkpoint.save(self._course.folder, self._key, self._place, parts)

    def forget(self) -> None:
        """Leave nothing to go on from where not one step was taken: what was refused is asked otherwise next time."""
        if self._place.steps == 0:
            checkpoint.discard(self._course.folder)

    def end(self, finished: bool) -> Fitted:
        """Give the module the best weights, in evaluation mode, and return how the fit went."""
        self._network.leave(self._best)
        place = self._place
        return Fitted(history=place.history, best=place.best, notes=place.notes, finished=finished)

    def _restored(self) -> bool:
        found = checkpoint.restore(self._course.folder, self._key)
        if found is None:
            return False
        self._place, parts = found
        self._network.restore(parts)
        self._optimizer = Optimizer(self._network.trained, self._recipe)
        self._optimizer.restore(self._place.switched, parts["optimizer"])
        self._best = parts.get("best", {})
        self._torch.set_rng_state(parts["random"]["state"])
        return True

    def _go_back(self, why: str) -> None:
        """Go back to the last good state, more slowly; raise `TrimtabError` when that was tried often enough."""
        brake = self._place.brake * _BRAKE
        rate = self._optimizer.rate * brake
        if brake < _BRAKE**_BRAKES:
            checkpoint.discard(self._course.folder)
            raise TrimtabError(
                f"training diverges: {why}, after going back {_BRAKES} times to half the learning rate; "
                f"give an lr below {rate:.1g}, a longer warmup, or clip=1"
            )
        self._optimizer.clear()
        self._restored()
        said = f"{why}: went back to step {self._place.steps:,}, on with a learning rate of {rate:.2g}"
        self._place = replace(self._place, brake=brake, notes=(*self._place.notes, said))
        self._save()

    def _switch_if_due(self) -> None:
        place = self._place
        scores = [each.score for each in place.history] if place.batch == 0 else []
        if self._optimizer.due(place.steps, place.epoch, scores):
            self._optimizer.switch()
            said = f"SGD took over from Adam after {place.steps:,} steps"
            self._place = replace(place, switched=True, notes=(*place.notes, said))

    def _clocks(self) -> tuple[float, float, float, float]:
        return time.monotonic(), time.process_time(), self._loader.waited_s, self._loader.read_s

    def _spend(self, since: tuple[float, float, float, float]) -> None:
        spent = [now - then for now, then in zip(self._clocks(), since, strict=True)]
        place, (seconds, cpu_s, waited_s) = self._place, self._place.spent
        self._place = replace(
            place,
            spent=(seconds + spent[0], cpu_s + spent[1], waited_s + spent[2]),
            read_s=place.read_s + spent[3],
        )


def _parts(batch: Batch, most: int) -> Iterator[Batch]:
    """Yield a batch in equal parts of about `most` items; none is of a single item, unless that is what is wanted."""
    count = len(batch.rows)
    parts = math.ceil(count / most) if most == 1 else max(1, min(math.ceil(count / most), count // 2))
    edges = [count * number // parts for number in range(parts + 1)]
    for rows in (slice(*ends) for ends in itertools.pairwise(edges)):
        feed = {name: array[rows] for name, array in batch.feed.items()}
        yield Batch(rows=batch.rows[rows], feed=feed, labels=None if batch.labels is None else batch.labels[rows])
