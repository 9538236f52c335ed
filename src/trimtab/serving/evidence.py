"""What lets others run a certificate again: what the original answered to each item, the item named by its content."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.files import disk_errors
from trimtab.core.protocols import Array
from trimtab.core.values import Split
from trimtab.data.arrays import open_array, row_digests
from trimtab.data.batches import labels as labels_of

EVIDENCE = "evidence.npz"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """The certified items, each by the digest of its inputs, with the original's outputs, a row per item.

    `labelled` says whether the items were judged by labels; otherwise the original's answers stood in for them.
    """

    digests: tuple[bytes, ...]
    outputs: Array
    labelled: bool

    def places(self, splits: Sequence[Split]) -> Array:
        """Return where each item is now: the number of its split, −1 when it is in none, and its row; shape (items, 2).

        An item that is in several splits is taken from the last one.
        """
        known: dict[bytes, tuple[int, int]] = {}
        for number, split in enumerate(splits):
            known.update((digest, (number, row)) for row, digest in enumerate(item_digests(split)))
        return np.array([known.get(digest, (-1, -1)) for digest in self.digests], dtype=np.int64).reshape(-1, 2)


def item_digests(split: Split) -> list[bytes]:
    """Return a digest of the inputs of each item, and of its label where it has one: relabelled it is another item."""
    labels = labels_of(split)
    known = [] if labels is None else [np.asarray(labels, dtype=np.float64)]
    return row_digests([*(open_array(file) for file in split.inputs), *known])


def write_evidence(folder: Path, split: Split, outputs: Array) -> None:
    """Keep the original's outputs on a split beside the bundle."""
    digests = np.array([np.frombuffer(digest, dtype=np.uint8) for digest in item_digests(split)])
    temporary = folder / f".part-{EVIDENCE}"
    with disk_errors(folder / EVIDENCE):
        np.savez_compressed(temporary, digests=digests, outputs=outputs, labelled=split.labels is not None)
        temporary.replace(folder / EVIDENCE)


def read_evidence(folder: Path) -> Evidence:
    """Return the evidence of a bundle; raise `BadInput` when there is none or it is damaged."""
    path = folder / EVIDENCE
    if not path.is_file():
        raise BadInput(f"{folder} holds no {EVIDENCE}: its model was not certified, there is nothing to verify")
    try:
        with np.load(path, allow_pickle=False) as kept:
            digests, outputs, labelled = kept["digests"], kept["outputs"], bool(kept["labelled"])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is damaged ({error}); copy the whole folder again") from error
    if len(digests) != len(outputs):
        raise BadInput(f"{path} is damaged: it names {len(digests)} items and answers {len(outputs)}")
    return Evidence(digests=tuple(row.tobytes() for row in digests), outputs=outputs, labelled=labelled)
