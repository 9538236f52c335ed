"""Finds the augmentations that a network is indifferent to, so that they change no item's right answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimtab.core.values import Model, Split, Task
from trimtab.data.batches import feeds
from trimtab.data.labels import answer_spec
from trimtab.formats.torch_tracing import caller, import_torch, load_live
from trimtab.training.augment import Augment
from trimtab.training.network import tensors_of

ASKED = ("crop", "flip", "rotate", "scale")
"""Those that leave nothing out of an image and mix nothing into it."""

_ITEMS = 500
_ALIKE = 0.96  # of the answers, at least: crops that cut a class off, or mirrored digits, change far more


def indifferent(model: Model, task: Task, split: Split, seed: int = 0) -> tuple[str, ...]:
    """Return the augmentations under which a trained model answers as it did before; none where it sees no images.

    Args:
        model: one whose answers are good, such as a teacher.
        task: the data, of classes.
        split: items to ask about; the first 500 are.
        seed: of what is random in an augmentation.
    """
    rows = np.arange(min(_ITEMS, len(split)))
    tensors = tensors_of(feeds(task, split, rows))
    images = next((name for name, x in tensors.items() if x.ndim == 4 and x.is_floating_point()), None)
    if images is None or tensors[images].shape[1] > 4 or task.kind not in ("classification", "binary"):
        return ()
    torch = import_torch("training")
    call, output = caller(load_live(model), model.signature), answer_spec(model.signature, task.output).name

    def answers(changed: Any) -> Any:
        with torch.inference_mode():
            found = call({**tensors, images: changed})[output].reshape(len(rows), -1)
        return found.argmax(1) if found.shape[1] > 1 else found[:, 0] > 0

    before, alike = answers(tensors[images]), []
    with torch.random.fork_rng():
        for name in ASKED:
            torch.manual_seed(seed)
            same = (answers(Augment([name])(tensors[images])) == before).float().mean()
            if float(same) >= _ALIKE:
                alike.append(name)
    return tuple(alike)
