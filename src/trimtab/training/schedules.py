"""The learning rate over a fit, as a share of its highest value: pure functions of how far the fit is."""

from __future__ import annotations

import math

from trimtab.training.recipe import Recipe

_STEPS = (0.5, 0.75)  # shares of the fit after which "step" divides the learning rate by ten
_RISE, _START, _END = 0.3, 1 / 25, 1 / 25 / 1e4  # of "one-cycle": Smith and Topin 2018, with PyTorch's defaults


def share_of_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate after `epoch` epochs (a fraction is allowed) as a share of the highest.

    It rises linearly over the warm-up and then follows the schedule over the rest of the fit. A one-cycle schedule
    has a warm-up of its own, so that none comes before it.
    """
    if recipe.schedule == "one-cycle":
        return _one_cycle(min(epoch / recipe.epochs, 1.0))
    warmup = min(recipe.warmup, recipe.epochs)
    if epoch < warmup:
        return epoch / warmup
    rest = recipe.epochs - warmup
    done = min((epoch - warmup) / rest, 1.0) if rest > 0 else 0.0
    if recipe.schedule == "cosine":
        return _cosine(1.0, 0.0, done)
    if recipe.schedule == "step":
        return float(10.0 ** -sum(done >= step for step in _STEPS))
    return 1.0


def _one_cycle(done: float) -> float:
    if done < _RISE:
        return _cosine(_START, 1.0, done / _RISE)
    return _cosine(1.0, _END, (done - _RISE) / (1 - _RISE))


def _cosine(start: float, end: float, done: float) -> float:
    """Return a value that goes from start to end along half a wave of the cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
