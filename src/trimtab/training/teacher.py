"""Teachers for distillation: what other networks answer to the items that a student learns on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import BadInput
from trimtab.core.files import whole_file
from trimtab.core.values import Model, Split, Task, content_digest
from trimtab.data.labels import answer_spec
from trimtab.formats.torch_tracing import caller, import_torch, load_live
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
    """Answers to the items as the student sees them: augmented or mixed. Several teachers answer by their mean."""

    def __init__(self, models: Sequence[Model], task: Task) -> None:
        self._torch = import_torch("distillation")
        self._calls = [caller(load_live(model), model.signature) for model in models]
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


def teacher_of(models: Sequence[Model], task: Task, folder: Path, *, augmented: bool) -> Teacher:
    """Return the teacher that some models are for the train split of a task: live where items are augmented."""
    split = task.split("train")
    if split is None:
        raise BadInput("distillation needs items to train on: give them with --train")
    return LiveTeacher(models, task) if augmented else KeptTeacher(models, task, split, folder)


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
