"""What a fit makes small: the error on labels, with smoothing, class weights and an L1 penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Task
from trimtab.formats.torch_tracing import import_torch
from trimtab.training.recipe import Recipe
from trimtab.training.shards import whole


class Loss:
    """The mean loss of a batch: cross-entropy for classes, the squared error for numbers, and what a teacher says."""

    def __init__(self, task: Task, recipe: Recipe, labels: Array | None) -> None:
        self._torch = import_torch("training")
        self._classes = task.kind in ("classification", "binary")
        self._smoothing = recipe.label_smoothing
        self._taught, self._temperature = recipe.distill, recipe.temperature
        if labels is None and self._taught < 1:
            raise BadInput(
                "training needs labels and the items to train on have none; give labels, or distill=1 to learn from "
                "a teacher alone"
            )
        self._weights = None
        if recipe.class_weights == "balanced" and self._classes and labels is not None:
            classes = max(len(task.classes), int(labels.max()) + 1)
            self._weights = self._torch.from_numpy(balanced(labels, classes))

    def __call__(self, outputs: Any, labels: Any) -> Any:
        """Return the loss of outputs [items, …] against labels [items(, …)] as a scalar tensor."""
        losses, outputs = self._torch.nn.functional, outputs.float()
        if not self._classes:
            return losses.mse_loss(outputs.reshape(labels.shape), labels.to(outputs.dtype))
        flat = outputs.reshape(len(outputs), -1)
        weights = None if self._weights is None else self._weights.to(flat.device)
        if flat.shape[1] > 1:
            return losses.cross_entropy(flat, labels, weights, label_smoothing=self._smoothing)
        wanted = labels.to(flat.dtype) * (1 - self._smoothing) + self._smoothing / 2
        weights = None if weights is None else weights[labels]
        return losses.binary_cross_entropy_with_logits(flat[:, 0], wanted, weights)

    def taught(self, outputs: Any, answers: Any) -> Any:
        """Return the loss of outputs against a teacher's [items, …] as a scalar tensor.

        For several classes it is the Kullback-Leibler divergence of both, softened by the temperature T, times T²
        (Hinton et al. 2015); for one logit the cross-entropy of both, softened likewise; for numbers the squared error.
        """
        losses, outputs, soft = self._torch.nn.functional, outputs.float(), self._temperature
        if answers.numel() != outputs.numel():
            sizes = [each.numel() // len(outputs) for each in (answers, outputs)]
            raise BadInput(
                f"the teacher answers {sizes[0]} numbers an item and the network {sizes[1]}; "
                "give a teacher of the same classes"
            )
        answers = answers.reshape(outputs.shape).to(outputs.device)
        if not self._classes:
            return losses.mse_loss(outputs, answers)
        flat, wanted = outputs.reshape(len(outputs), -1), answers.reshape(len(outputs), -1)
        if flat.shape[1] > 1:
            told, said = (losses.log_softmax(each / soft, dim=1) for each in (flat, wanted))
            return soft**2 * losses.kl_div(told, said, reduction="batchmean", log_target=True)
        return soft**2 * losses.binary_cross_entropy_with_logits(flat / soft, self._torch.sigmoid(wanted / soft))


def balanced(labels: Array, classes: int) -> Array:
    """Return a weight for every class in inverse proportion to its items, 1 on average over items (float32)."""
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def l1_norm(weights: Sequence[Any]) -> Any:
    """Return the sum of the absolute values of some weights."""
    return sum(whole(weight.abs().sum()) for weight in weights)


def add_l1(weights: Sequence[Any], factor: float) -> float:
    """Add the gradient of an L1 penalty, factor · sign(weight), to that of some weights; return the penalty.

    It is no part of the graph, because processes that train together exchange only what `forward` uses.
    """
    with import_torch("training").no_grad():
        for weight in weights:
            slope = factor * weight.sign()
            weight.grad = slope if weight.grad is None else weight.grad.add_(slope)
        return factor * float(l1_norm(weights))
