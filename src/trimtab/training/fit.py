"""The fit loop: trains a PyTorch module on the train split, validates it on the select split, keeps the best."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, TrimtabError
from trimtab.core.protocols import Array
from trimtab.core.values import Signature, Split, Task, content_digest
from trimtab.data.batches import labels as labels_of
from trimtab.formats.torch_tracing import import_torch
from trimtab.training import checkpoint
from trimtab.training.augment import Augment, mixed
from trimtab.training.checkpoint import Epoch, Position
from trimtab.training.group import ALONE, Group
from trimtab.training.items import Items, Keeping, kept_items
from trimtab.training.loader import Batch, Loader
from trimtab.training.losses import Loss, add_l1
from trimtab.training.network import Network, seeded, tensors_of, told
from trimtab.training.optimizers import Optimizer, decayed
from trimtab.training.recipe import Recipe
from trimtab.training.schedules import share_of_rate
from trimtab.training.shards import all_whole, clip
from trimtab.training.teacher import Teacher

Score = Callable[[Array], float]
"""Tells how good the outputs on the select split are; higher is better."""

Hold = Callable[[float], bool]
"""Changes the weights after every step, at that many epochs; says whether they are now as they shall be in the end."""

_CHECKPOINT_S = 60.0
_APART = 1_000_003  # between the seeds of the processes that train together
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
    """Where, with whom and how long a fit runs, and who hears of every epoch.

    `folder` keeps the checkpoint, `start` names what the fit begins with (the digests of the model and its teachers),
    `teacher` answers where the recipe distils, `deadline` is in `time.monotonic()` seconds. `begun` hears once of the
    epochs that were there before, `heard` of every one that ends from then on. `hold` keeps the weights to a
    constraint; only epochs that end with it kept can be the best. Of a `group` of processes the first one judges,
    keeps the checkpoint, has the clock and tells.
    """

    folder: Path
    start: str
    teacher: Teacher | None = None
    deadline: float = math.inf
    begun: Callable[[tuple[Epoch, ...]], None] = lambda history: None
    heard: Callable[[Epoch], None] = lambda epoch: None
    hold: Hold = lambda epochs: True
    group: Group = ALONE


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
    work, select, group = _begun(module, signature, task, recipe, course), task.split("select"), course.group
    if select is None:
        raise BadInput("there are no items to choose the best epoch by: give them with --data")

    def judge() -> float | None:
        found, known = math.nan, False
        outputs = work.network.predict(task, select) if group.rank == 0 or group.divided else None
        if outputs is not None and group.rank == 0:
            known = bool(np.isfinite(outputs).all())
            found = score(outputs) if known else math.nan
        found, all_finite = group.first(found, known)
        return found if all_finite else None

    work.begin()
    finished = True
    try:
        while finished and not work.over():
            finished = work.epoch(judge)
    except BadInput:
        work.forget()
        raise
    return work.end(finished)


def fitted(module: Any, signature: Signature, task: Task, recipe: Recipe, course: Course) -> Fitted:
    """Return how a fit went that other processes ran, and give the module what they learnt.

    Raises:
        BadInput: there is no checkpoint of theirs.
    """
    work = _begun(module, signature, task, recipe, course)
    if not work.restored():
        raise BadInput(f"there is no checkpoint in {course.folder}, so nothing to read; train first")
    return work.end(work.over())


def _begun(module: Any, signature: Signature, task: Task, recipe: Recipe, course: Course) -> _Fit:
    """Return the fit that a recipe describes, before its first step."""
    train = task.split("train")
    if train is None:
        raise BadInput("there are no items to train on: give them with --train, or name some of the data train")
    _check(recipe, course)
    items, keeping = _kept_items(task, train, recipe, course)
    count = math.ceil(recipe.share * len(train))
    loader = Loader(task, train, recipe.batch, recipe.seed, course.group.share, items=items, count=count)
    if not len(loader):
        found = "there is 1 item" if len(train) == 1 else f"there are {len(train)} items"
        raise BadInput(
            f"{found} to train on: a step takes at least two, and a fit a few hundred; give more with --train, or "
            "let trimtab optimize do what needs no training"
        )
    network = Network(module, signature, task, recipe, getattr(course.teacher, "modules", ()), course.group)
    key = content_digest(course.start, repr(signature), task.digest, recipe.options(), checkpoint.FORM)
    work = _Fit(network, loader, Loss(task, recipe, labels_of(train)), recipe, course, key)
    work.keeping = keeping
    return work


def _check(recipe: Recipe, course: Course) -> None:
    """Raise `BadInput` where a recipe can't be followed in this company."""
    group = course.group
    if recipe.taught and course.teacher is None:
        raise BadInput("distill and hints need a teacher: name one with --teacher")
    if recipe.taught and group.parallel == "pipeline":
        raise BadInput("a network in stages can't be taught: its teacher would be asked in every process; use ddp")
    if recipe.hints != "none" and group.size > 1:
        raise BadInput(
            "hints are compared in one process only: leave --processes out, or learn from the teacher's answers "
            "(distill) alone"
        )


def _kept_items(task: Task, train: Split, recipe: Recipe, course: Course) -> tuple[Items, Keeping | None]:
    """Return the items as they are kept, which the first process of a group has done before another one reads them."""
    group = course.group
    if group.rank:
        group.summed(0.0)
    found = kept_items(task, train, recipe.store, course.folder / "items", recipe.batch)
    if not group.rank:
        group.summed(0.0)
    return found


class _Diverged(ArithmeticError):
    """The loss, or what the network answers, is not a number any more."""


class _Fit:
    """The state of a fit, and the steps that change it."""

    def __init__(self, network: Network, loader: Loader, loss: Loss, recipe: Recipe, course: Course, key: str) -> None:
        self._torch = import_torch("training")
        self.network, self._loader, self._loss, self._recipe = network, loader, loss, recipe
        self._course, self._group, self._key = course, course.group, key
        self._augment = Augment(recipe.augmentations)
        self._optimizer = Optimizer(network.trained, recipe, network.numbers)
        self._place = Position()
        self._best: dict[str, Any] = {}
        self._held = False
        self.keeping: Keeping | None = None

    def begin(self) -> None:
        """Go on from the checkpoint, or begin with one: whatever happens, there is a state to go back to."""
        if not self.restored():
            if not self.network.finite():
                raise BadInput("the weights hold NaN or infinity before any training; give others with --weights")
            self._seed()
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
        self.network.module.train()
        clocks, saved = self._clocks(), time.monotonic()
        for batch in self._loader.epoch(self._place.epoch, self._place.batch):
            loss = self._step(batch)
            place = self._place
            self._place = replace(place, batch=place.batch + 1, steps=place.steps + 1, loss_sum=place.loss_sum + loss)
            self._switch_if_due()
            now = time.monotonic()
            over, due = self._group.first(now >= self._course.deadline, now - saved > _CHECKPOINT_S)
            if over:
                break
            if due:
                self._spend(clocks)
                self._save()
                clocks, saved = self._clocks(), time.monotonic()
        self._spend(clocks)
        return self._place.batch >= len(self._loader)

    def _step(self, batch: Batch) -> float:
        """Take one step of the optimizer on a batch and return its mean loss."""
        recipe, place, group = self._recipe, self._place, self._group
        total = self._learnt(batch) if self.network.line is None else self._learnt_in_stages(batch)
        if recipe.l1:
            total += group.in_stages(add_l1(decayed(self.network.module), recipe.l1))
        if not math.isfinite(total):
            raise _Diverged(f"the loss was {total} in epoch {place.epoch + 1}, step {place.steps + 1}")
        if recipe.clip is not None:
            clip(list(self.network.trained.parameters()), recipe.clip, group)
        done = place.epoch + (place.batch + 1) / len(self._loader)
        self._optimizer.step(share_of_rate(recipe, done) * place.brake)
        self._optimizer.clear()
        self._held = self._course.hold(done)
        self.network.average()
        return total

    def _learnt(self, batch: Batch) -> float:
        """Leave the gradients of a batch, averaged over all processes, and return its mean loss."""
        recipe, group, total = self._recipe, self._group, 0.0
        parts = list(_parts(batch, recipe.batch // recipe.accumulate, group.share[1]))
        for number, part in enumerate(parts, start=1):
            with self.network.exchanging(number == len(parts)):
                tensors, wanted = self._augmented(part)
                outputs = self.network.answer(tensors)
                loss = self._with_teacher(self._compared(outputs, wanted), outputs, part, tensors)
                loss = loss * (len(part.rows) * group.share[1] / batch.of)
                with told("the network can't be trained"):
                    loss.backward()
            total += loss.item()
        return group.summed(total)[0] / group.size

    def _with_teacher(self, loss: Any, outputs: Any, batch: Batch, tensors: Mapping[str, Any]) -> Any:
        """Return the loss against labels together with what the teacher has to say to the same items."""
        recipe, teacher = self._recipe, self._course.teacher
        if not recipe.taught or teacher is None:
            return loss
        with told("what the network answers can't be compared with what its teacher does"):
            answers = teacher(batch.rows, tensors)
            if recipe.distill:
                loss = (1 - recipe.distill) * loss + recipe.distill * self._loss.taught(outputs, answers)
            return loss + recipe.hint_weight * self.network.hinted(tensors)

    def _learnt_in_stages(self, batch: Batch) -> float:
        """Leave the gradients of a batch in every stage, and return its mean loss."""
        seeded(self._recipe.seed + _APART * (self._place.steps + 1))  # so that all stages augment alike
        tensors, wanted = self._augmented(batch)
        shares = [share for share, _ in wanted]
        labels = self._torch.stack([each for _, each in wanted], dim=1)

        def compared(outputs: Any, part: Any) -> Any:
            return self._compared(outputs, [(share, part[:, place]) for place, share in enumerate(shares)])

        return self.network.learn(tensors, labels, compared)

    def _augmented(self, batch: Batch) -> tuple[dict[str, Any], list[tuple[float, Any]]]:
        """Return a batch augmented, and the labels to compare it with, each with its share: two where it is mixed."""
        recipe, device, labels = self._recipe, self._group.device, None
        tensors = tensors_of(batch.feed, device)
        if batch.labels is not None:
            labels = self._torch.from_numpy(np.ascontiguousarray(batch.labels)).to(device)
        wanted = [] if labels is None or recipe.distill == 1 else [(1.0, labels)]
        if recipe.augmentations:
            images = next((name for name, x in tensors.items() if x.ndim == 4 and x.is_floating_point()), None)
            if images is None:
                raise BadInput(
                    "augmentation needs images [items, channels, height, width] of fractions; leave augment out"
                )
            tensors[images] = self._augment(tensors[images])
            if "mixup" in recipe.augmentations:
                tensors[images], order, share = mixed(tensors[images])
                wanted = [each for _, x in wanted for each in ((share, x), (1 - share, x[order]))]
        return tensors, wanted

    def _compared(self, outputs: Any, wanted: Sequence[tuple[float, Any]]) -> Any:
        """Return the mean loss of outputs against labels of some shares, with its graph."""
        with told("what the network answers can't be compared with what it should answer"):
            return sum(share * self._loss(outputs, labels) for share, labels in wanted)

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
            best, self._best = epoch.number, self.network.weights()
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
        if not self.network.finite():
            raise _Diverged(f"the weights were not finite after step {self._place.steps:,}")
        random = self._group.collected(self._torch.get_rng_state())
        parts = {
            **self.network.state(),
            "optimizer": self._optimizer.state(self._group),
            "best": all_whole(self._best, self._group),
            "random": {str(rank): state for rank, state in enumerate(random)},
        }
        if self._group.rank == 0:
            checkpoint.save(self._course.folder, self._key, self._place, parts)
        self._group.summed(0.0)  # nobody reads it before it is written

    def _seed(self) -> None:
        """Begin the random numbers of this process, which are not those of another one."""
        seeded(self._recipe.seed + _APART * self._group.share[0])

    def forget(self) -> None:
        """Leave nothing to go on from where not one step was taken: what was refused is asked otherwise next time."""
        if self._place.steps == 0 and self._group.rank == 0:
            checkpoint.discard(self._course.folder)

    def end(self, finished: bool) -> Fitted:
        """Give the module the best weights, in evaluation mode, and return how the fit went."""
        self.network.leave(self._best)
        place = self._place
        return Fitted(
            history=place.history, best=place.best, notes=place.notes, finished=finished, keeping=self.keeping
        )

    def restored(self) -> bool:
        """Go on from the checkpoint; return False where there is none."""
        found = checkpoint.restore(self._course.folder, self._key)
        if found is None:
            return False
        self._place, parts = found
        self.network.restore(parts)
        self._optimizer = Optimizer(self.network.trained, self._recipe, self.network.numbers)
        self._optimizer.restore(self._place.switched, parts["optimizer"])
        self._best = self.network.placed(parts.get("best", {}))
        if (random := parts["random"].get(str(self._group.rank))) is None:
            self._seed()  # there were fewer processes
        else:
            self._torch.set_rng_state(random)
        return True

    def _go_back(self, why: str) -> None:
        """Go back to the last good state, more slowly; raise `TrimtabError` when that was tried often enough."""
        brake = self._place.brake * _BRAKE
        rate = self._optimizer.rate * brake
        if brake < _BRAKE**_BRAKES:
            self._group.collected(self._torch.zeros(1))  # the others have read what is discarded
            checkpoint.discard(self._course.folder)
            raise TrimtabError(
                f"training diverges: {why}, after going back {_BRAKES} times to half the learning rate; "
                f"give an lr below {rate:.1g}, a longer warmup, or clip=1"
            )
        self._optimizer.clear()
        self.restored()
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
        wall, cpu, waited, read = (now - then for now, then in zip(self._clocks(), since, strict=True))
        (cpu,) = self._group.summed(cpu)
        place, spent = self._place, self._place.spent
        spent = (spent[0] + wall, spent[1] + cpu, spent[2] + waited)
        self._place = replace(place, spent=spent, read_s=place.read_s + read)


def _parts(batch: Batch, most: int, processes: int = 1) -> Iterator[Batch]:
    """Yield the share of a batch in equal parts, of about `most` items in all processes.

    There are as many in every process, and none is of a single item, unless that is what is wanted.
    """
    count, least, most = len(batch.rows), batch.of // processes, max(1, most // processes)
    parts = math.ceil(least / most) if most == 1 else max(1, min(math.ceil(least / most), least // 2))
    edges = [count * number // parts for number in range(parts + 1)]
    for rows in (slice(*ends) for ends in itertools.pairwise(edges)):
        feed = {name: array[rows] for name, array in batch.feed.items()}
        labels = None if batch.labels is None else batch.labels[rows]
        yield Batch(rows=batch.rows[rows], feed=feed, labels=labels, of=batch.of)
