"""Teachers for distillation: what other networks answer to the items that a student learns on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import BadInput
from trimtab.core.files import whole_file
from trimtab.core.values import Model, Signature, Split, Task, content_digest
from trimtab.data.labels import answer_spec
from trimtab.formats.torch_tracing import FORMATS, caller, import_torch, load_live
from trimtab.training.network import answers_of


class Teacher(Protocol):
    """Answers for a student to learn from."""

    def __call__(self, rows: NDArray[np.int64], tensors: Mapping[str, Any]) -> Any:
        """Return what is to be answered to items of the train split, shape [items, …], without a graph.

        Args:
            rows: their positions in the train split.
            tensors: the items as the student sees them, augmented.
        """
        ...


class LiveTeacher:
    """Answers to the items as the student sees them: augmented or mixed. Several teachers answer by their mean.

    `modules` are the live networks, for who wants to look into them while they answer.
    """

    def __init__(self, models: Sequence[Model], task: Task, device: str = "cpu") -> None:
        self._torch = import_torch("distillation")
        self.modules = [load_live(model).to(device) for model in models]
        self._calls = [caller(live, model.signature) for live, model in zip(self.modules, models, strict=True)]
        self._names = [answer_spec(model.signature, task.output).name for model in models]

    def __call__(self, rows: NDArray[np.int64], tensors: Mapping[str, Any]) -> Any:
        """Return the mean of their outputs."""
        with self._torch.no_grad():
            answers = [call(tensors)[name].float() for call, name in zip(self._calls, self._names, strict=True)]
            _check_alike([tuple(each.shape) for each in answers])
            return sum(answers) / len(answers)


class KeptTeacher:
    """Answers to the items as they are, computed once and kept on disk: right for students without augmentation."""

    def __init__(self, models: Sequence[Model], task: Task, split: Split, folder: Path) -> None:
        self._torch = import_torch("distillation")
        kept = [_kept(model, task, split, folder) for model in models]
        _check_alike([each.shape for each in kept])
        self._answers = kept

    def __call__(self, rows: NDArray[np.int64], tensors: Mapping[str, Any]) -> Any:
        """Return the mean of their outputs."""
        return self._torch.from_numpy(np.mean([each[rows] for each in self._answers], axis=0))


def teacher_of(
    models: Sequence[Model], signature: Signature, task: Task, folder: Path, *, live: bool, device: str = "cpu"
) -> Teacher:
    """Return the teacher that some models are for a student of that signature, on the train split of a task.

    It is `live` where it has to answer in every step, on the `device` where the student learns; else its answers are
    computed once and kept in the folder.

    Raises:
        BadInput: there are no items to train on, or a model takes or answers something else than the student.
    """
    split = task.split("train")
    if split is None:
        raise BadInput("distillation needs items to train on: give them with --train")
    for model in models:
        _check(model, signature, task)
    return LiveTeacher(models, task, device) if live else KeptTeacher(models, task, split, folder)


def _check(teacher: Model, signature: Signature, task: Task) -> None:
    """Raise `BadInput` when a teacher can't be asked what a student is."""
    if teacher.format not in FORMATS:
        raise BadInput(f"the teacher {teacher.path} is {teacher.format}; give one in PyTorch: package.module:factory")
    theirs, ours = ([(spec.name, spec.dtype) for spec in each.inputs] for each in (teacher.signature, signature))
    if sorted(theirs) != sorted(ours):
        told, own = (", ".join(f"{name}:{dtype}" for name, dtype in each) for each in (theirs, ours))
        raise BadInput(f"the teacher takes {told} and the network {own}; give a teacher of the same inputs")
    given, wanted = (answer_spec(each, task.output).shape[1:] for each in (teacher.signature, signature))
    sizes = [[size for size in shape if isinstance(size, int)] for shape in (given, wanted)]
    if len(sizes[0]) == len(given) and len(sizes[1]) == len(wanted) and math.prod(sizes[0]) != math.prod(sizes[1]):
        raise BadInput(
            f"the teacher answers {math.prod(sizes[0])} numbers an item and the network {math.prod(sizes[1])}; "
            "give a teacher of the same classes"
        )


def _check_alike(shapes: Sequence[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        told = ", ".join(str(list(shape[1:])) for shape in shapes)
        raise BadInput(f"the teachers answer in different shapes ({told} an item); give teachers of one task")


def _kept(model: Model, task: Task, split: Split, folder: Path) -> NDArray[np.float32]:
    """Return the outputs of a model on a split, [items, …], from the disk where they have been computed before."""
    path = folder / f"answers-{content_digest(model.digest, split.digest, task.digest)[:16]}.npy"
    if not path.is_file():
        answers = answers_of(load_live(model), model.signature, task, split).astype(np.float32)
        with whole_file(path) as file:
            np.save(file, answers, allow_pickle=False)
    found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found
