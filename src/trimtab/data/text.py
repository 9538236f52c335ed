"""Turns texts into token ids with a `tokenizer.json`, as the Hugging Face libraries write it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.protocols import Array
from trimtab.core.values import Model, Step, options

_ALIASES = {
    "input_ids": ("input_ids", "ids", "input"),
    "attention_mask": ("attention_mask", "input_mask", "mask"),
    "token_type_ids": ("token_type_ids", "segment_ids"),
}
_LONGEST = 512


def tokenizer_file(path: Path) -> Path | None:
    """Return the `tokenizer.json` that a path is or holds, or None."""
    if path.is_dir():
        path = path / "tokenizer.json"
    return path if path.is_file() and path.suffix == ".json" else None


def tokenizer_beside(model: Model) -> Path | None:
    """Return the `tokenizer.json` inside or beside a model, or None."""
    places = (model.path, model.path.parent)
    return next((found for place in places if place.is_dir() and (found := tokenizer_file(place))), None)


def tokenize_step(file: Path, length: int | None = None) -> Step:
    """Return the step that tokenizes with that file, at most `length` tokens."""
    return Step(technique="tokenize", options=options(tokenizer=str(file), length=length))


def fixed_length(model: Model) -> int | None:
    """Return the number of tokens that the model's inputs are fixed to, None when it is free."""
    sizes = [spec.shape[1] for spec in model.signature.data_inputs if len(spec.shape) == 2]
    return next((size for size in sizes if isinstance(size, int)), None)


def tokenize(texts: Sequence[str], step: Step, model: Model) -> tuple[dict[str, Array], Step, str | None]:
    """Return the model's inputs by name, int64 [texts, tokens], the step as it was done, and a note on cut texts.

    All texts are padded to the longest of them, or to the length that the model is fixed to. Longer ones than `length`
    are cut; without it the tokenizer's own limit holds, else its configuration's, else 512 tokens. Where the step gives
    a `width`, as every step that was done does, texts are padded and cut to that: equal texts become equal rows,
    whatever other texts come with them.
    """
    given = dict(step.options)
    file = tokenizer_file(Path(str(given["tokenizer"])))
    if file is None:
        raise BadInput(
            f"there is no tokenizer.json at {given['tokenizer']}; save the tokenizer as one file and name it"
        )
    fixed = fixed_length(model)
    length, width = (int(given.get(name) or fixed or 0) for name in ("length", "width"))
    if fixed is not None and (asked := max(length, width)) > fixed:
        raise BadInput(f"the model takes {fixed} tokens and the tokenize step asks for {asked}; set length = {fixed}")
    width = fixed or width
    tokenizer, padding, limit = _ready(file, file.stat().st_mtime_ns, length, width, _configured(file))
    encoded = tokenizer.encode_batch(list(texts))
    cut = sum(bool(one.overflowing) for one in encoded)
    width = width or max(len(one.ids) for one in encoded)
    left = padding.get("direction") == "left"
    parts = {
        "input_ids": ([one.ids for one in encoded], _pad_id(tokenizer, padding)),
        "attention_mask": ([one.attention_mask for one in encoded], 0),
        "token_type_ids": ([one.type_ids for one in encoded], padding.get("pad_type_id", 0)),
    }
    made = {name: _padded(rows, width, fill, left) for name, (rows, fill) in parts.items()}
    note = f"{cut:,} of {len(encoded):,} texts are longer than {limit} tokens and were cut" if cut else None
    done = Step(technique="tokenize", options=options(tokenizer=str(file), length=limit, width=width))
    return _by_input(made, model), done, note


@lru_cache(maxsize=4)
def _ready(file: Path, changed_ns: int, length: int, width: int, longest: int) -> tuple[Any, dict[str, Any], int]:
    """Return the tokenizer, which cuts but does not pad, how it padded by itself, and the tokens it cuts texts to.

    Zero as length or width is none; `longest` is for a tokenizer that says nothing. It is kept, because reading a file
    takes longer than tokenizing a text.
    """
    tokenizer = _load(file)
    padding = tokenizer.padding or {}
    limit = length or (tokenizer.truncation or {}).get("max_length") or longest
    limit = min(limit, width or limit)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=limit)
    return tokenizer, padding, limit


def _load(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "text", "turning text into tokens") from error
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises no narrower one for a file it can't read
        raise BadInput(f"{file} is not a tokenizer.json ({error}); save the tokenizer again") from error


def _configured(file: Path) -> int:
    """Return the longest text that the configuration beside the tokenizer allows; it writes 1e30 for "no limit"."""
    try:
        configuration = json.loads((file.parent / "tokenizer_config.json").read_text())
        limit = int(configuration["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return _LONGEST
    return limit if 0 < limit < 100_000 else _LONGEST


def _pad_id(tokenizer: Any, padding: dict[str, Any]) -> int:
    if "pad_id" in padding:
        return int(padding["pad_id"])
    ids = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>", "<|endoftext|>"))
    return next((int(one) for one in ids if one is not None), 0)


def _padded(rows: list[list[int]], width: int, fill: int, left: bool) -> Array:
    made = np.full((len(rows), width), fill, dtype=np.int64)
    for row, values in enumerate(rows):
        if values:
            made[row, -len(values) if left else 0 : None if left else len(values)] = values
    return made


def _by_input(made: dict[str, Array], model: Model) -> dict[str, Array]:
    columns = {}
    for spec in model.signature.data_inputs:
        known = next((name for name, aliases in _ALIASES.items() if spec.name in aliases), None)
        if known is None:
            raise BadInput(
                f"the model's input {spec.name!r} is none that a tokenizer gives ({', '.join(made)}); give the data as "
                "an .npz with one array per input"
            )
        columns[spec.name] = made[known]
    return columns
