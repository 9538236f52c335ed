"""Hands out the items of the train split in an order of its own for every epoch, prepared one step ahead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trimtab.core.protocols import Array
from trimtab.core.values import Split, Task
from trimtab.data.batches import Feed, feeds
from trimtab.data.batches import labels as labels_of
from trimtab.training.items import Items


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Items to train on: their positions in the split, prepared for the model, with their labels if they have any.

    `of` is the number of items of the batch in all processes together.
    """

    rows: NDArray[np.int64]
    feed: Feed
    labels: Array | None
    of: int


class Loader:
    """Batches of a split: the order depends on the seed and the epoch only, so that any epoch can be begun anywhere.

    An epoch sees `count` of them, all by default, and not the same ones in every epoch.

    `share` = (part, parts) hands out every parts-th item of each batch, for training in several processes. A last
    batch of which a share would be a single item is left out: batch normalization can't be trained on it. `items` hands
    out what is kept otherwise than the task has it.

    `read_s` adds up the seconds that it took to prepare batches, `waited_s` those of them that the caller had to wait
    for; the rest was hidden behind what it did with the batch before.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        batch: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
        items: Items | None = None,
        count: int | None = None,
    ) -> None:
        self._split, self._batch, self._seed, self._share = split, batch, seed, share
        self._items: Items = items or (lambda rows: feeds(task, split, rows))
        self._count = len(split) if count is None else min(count, len(split))
        self._labels = labels_of(split)
        self.waited_s = self.read_s = 0.0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(self._count, self._batch)
        return whole + (rest >= 2 * self._share[1])

    def rows(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Return the positions in the split of the items of one batch (of this process's share of them).

        They come in the order of the epoch, so that each part of a batch is a random sample as well.
        """
        part, parts = self._share
        return self._whole(epoch, number)[part::parts]

    def _whole(self, epoch: int, number: int) -> NDArray[np.int64]:
        order = _order(self._seed, epoch, len(self._split))
        return order[: self._count][number * self._batch : (number + 1) * self._batch]

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield every batch from `start` on; the next one is read while the last one is used."""
        if start >= len(self):
            return
        with ThreadPoolExecutor(1) as reading:
            coming = reading.submit(self._read, number, start)
            for place in range(start, len(self)):
                begun = time.monotonic()
                ready = coming.result()
                self.waited_s += time.monotonic() - begun
                if place + 1 < len(self):
                    coming = reading.submit(self._read, number, place + 1)
                yield ready

    def _read(self, epoch: int, number: int) -> Batch:
        begun = time.monotonic()
        rows = self.rows(epoch, number)
        labels = None if self._labels is None else self._labels[rows]
        of = len(self._whole(epoch, number))
        batch = Batch(rows=rows, feed=self._items(rows), labels=labels, of=of)
        self.read_s += time.monotonic() - begun
        return batch


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, items: int) -> NDArray[np.int64]:
    order = np.random.default_rng((seed, epoch)).permutation(items)
    order.flags.writeable = False  # every caller gets the same array
    return order
