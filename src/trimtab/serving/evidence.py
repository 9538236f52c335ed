"""What lets others run a certificate again: what the original answered to each item, the item named by its content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.core.errors import BadInput
from trimtab.core.protocols import Array
from trimtab.core.values import Split
from trimtab.data.arrays import open_array, row_digests

EVIDENCE = "evidence.npz"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evidence:
    """The original's outputs by the digest of the item that they answer."""

    items: dict[bytes, int]
    outputs: Array

    def answers_to(self, split: Split) -> tuple[Array, Array]:
        """Return the rows of the split that the evidence knows, and the original's outputs for them."""
        rows, places = [], []
        for row, digest in enumerate(item_digests(split)):
            if (place := self.items.get(digest)) is not None:
                rows.append(row)
                places.append(place)
        return np.array(rows, dtype=np.int64), self.outputs[np.array(places, dtype=np.int64)]


def item_digests(split: Split) -> list[bytes]:
    """Return a digest of the inputs of each item."""
    return row_digests(open_array(file) for file in split.inputs)


def write_evidence(folder: Path, split: Split, outputs: Array) -> None:
    """Keep the original's outputs on a split beside the bundle."""
    digests = np.array([np.frombuffer(digest, dtype=np.uint8) for digest in item_digests(split)])
    temporary = folder / f".part-{EVIDENCE}"
    np.savez_compressed(temporary, digests=digests, outputs=outputs)
    temporary.replace(folder / EVIDENCE)


def read_evidence(folder: Path) -> Evidence:
    """Return the evidence of a bundle."""
    path = folder / EVIDENCE
    if not path.is_file():
        raise BadInput(f"{folder} holds no {EVIDENCE}: its model was not certified, there is nothing to verify")
    with np.load(path, allow_pickle=False) as kept:
        digests, outputs = kept["digests"], kept["outputs"]
    return Evidence(items={row.tobytes(): place for place, row in enumerate(digests)}, outputs=outputs)
