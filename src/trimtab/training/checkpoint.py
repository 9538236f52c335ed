"""What a fit needs to go on where it was, bit for bit, as one file of safetensors; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.files import disk_errors, make_folder

FILE = "checkpoint.safetensors"
_GROUPS, _KEY, _POSITION = "groups", "key", "position"  # of the file's own metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the train items: mean loss, validation score (higher is better) and what it took.

    `rate` is the learning rate at its end, `seconds` and `cpu_s` wall-clock and processor time without validation,
    `waited_s` the part of the former in which no item was ready. `read_s` is what preparing the items took, which went
    on beside it.
    """

    number: int
    steps: int
    loss: float
    score: float
    rate: float
    optimizer: str
    seconds: float
    cpu_s: float
    waited_s: float
    read_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a fit is: whole epochs, batches of the one under way with the sum of their losses, and its history.

    `brake` is what the learning rate is multiplied by since the loss diverged, `switched` says that
    SGD has taken over, `notes` say what happened.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    spent: tuple[float, float, float] = (0.0, 0.0, 0.0)
    read_s: float = 0.0
    brake: float = 1.0
    switched: bool = False
    best: int | None = None
    history: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()


FORM = tuple(field.name for kind in (Position, Epoch) for field in fields(kind))
"""What a checkpoint tells, for its key: one that tells something else was written by other code."""

Tensors = dict[str, Any]


class _Foreign(Exception):
    """The checkpoint is of another fit."""


def save(folder: Path, key: str, position: Position, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new, never half of it.

    Args:
        folder: the checkpoint's folder.
        key: what the fit is about (network, data, recipe, code): only the same fit may go on from it.
        position: how far it is.
        parts: tensors by name under the name of their owner; "optimizer" is the state_dict of an optimizer.
    """
    save_file = _safetensors().torch.save_file
    flat: Tensors = {}
    groups = "[]"
    for owner, state in parts.items():
        if owner == "optimizer":
            groups = json.dumps(state["param_groups"])
            state = {f"{i}/{name}": each for i, held in state["state"].items() for name, each in held.items()}
        named = {f"{owner}/{name}": each for name, each in state.items() if each is not None}
        flat |= {name: each.detach().clone().contiguous() for name, each in named.items()}
    path, fresh = make_folder(folder) / FILE, folder / f".{FILE}"  # a killed one is overwritten by the next
    with disk_errors(path):
        save_file(flat, fresh, {_KEY: key, _POSITION: dumps(position), _GROUPS: groups})
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.replace(path)


def restore(folder: Path, key: str) -> tuple[Position, dict[str, Any]] | None:
    """Return how far the fit was and its tensors by owner and name, or None where there is no checkpoint.

    Raises:
        BadInput: the checkpoint is damaged, or of another fit.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    library = _safetensors()
    try:
        with library.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told[_KEY] != key:
                raise _Foreign
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        position, groups = loads(Position, told[_POSITION]), _groups(told[_GROUPS])
    except _Foreign:
        raise BadInput(
            f"the checkpoint {path} is of another network, other data, another recipe or other code; "
            "delete it or choose another --output"
        ) from None
    except (BadInput, KeyError, OSError, ValueError, library.SafetensorError) as error:
        raise BadInput(f"the checkpoint {path} is damaged ({error}); delete it and train anew") from error
    parts: dict[str, Any] = {}
    for name, tensor in flat.items():
        owner, _, rest = name.partition("/")
        parts.setdefault(owner, {})[rest] = tensor
    parts["optimizer"] = {"state": _by_number(parts.get("optimizer", {})), "param_groups": groups}
    return position, parts


def discard(folder: Path) -> None:
    """Delete a checkpoint that is of no use any more."""
    (folder / FILE).unlink(missing_ok=True)


def _by_number(flat: Tensors) -> dict[int, Tensors]:
    found: dict[int, Tensors] = {}
    for name, tensor in flat.items():
        number, _, rest = name.partition("/")
        found.setdefault(int(number), {})[rest] = tensor
    return found


def _groups(text: str) -> list[dict[str, Any]]:
    """Return the groups of an optimizer; what JSON made a list of (Adam's betas) is a tuple again."""
    return [
        {name: tuple(value) if isinstance(value, list) and name != "params" else value for name, value in group.items()}
        for group in json.loads(text)
    ]


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtra("safetensors", "torch", "training") from error
    return safetensors
