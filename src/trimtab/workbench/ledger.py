"""The ledger of looks: how often certify items have been tested on, across runs. Every look costs some trust.

Items are known by their content, so that another seed, budget or order of the same data starts no new count. Of a
split the 256 items with the smallest digests are noted, which is a random sample, and the same one of the items that
two splits share (A. Broder, "On the resemblance and containment of documents", Compression and Complexity of
Sequences 1997).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimtab.core.files import disk_errors, home, make_folder
from trimtab.core.values import Split
from trimtab.serving.evidence import item_digests

_NOTED = 256


def look(split: Split, variant_key: str, run: Path) -> int:
    """Note that a variant was tested on a certify split; return how many different variants have been so far.

    That is the most that any item of the split has met, in whatever split it was then.
    """
    path, items = make_folder(home()) / "looks.jsonl", _noted(split)
    met = _met(path, items)
    if not all(variant_key in met[item] for item in items):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"variant": variant_key, "run": str(run.resolve()), "time": now, "items": items})
        with disk_errors(path), path.open("ab") as file:
            file.write(b"\n" * _cut_off(path) + line.encode() + b"\n")
    return max((len(met[item] | {variant_key}) for item in items), default=0)


def looks(split: Split) -> int:
    """Return how many different variants have been tested on the items of a split so far."""
    items = _noted(split)
    met = _met(home() / "looks.jsonl", items)
    return max((len(met[item]) for item in items), default=0)


@lru_cache(maxsize=4)
def _noted(split: Split) -> tuple[str, ...]:
    return tuple(sorted({digest.hex()[:16] for digest in item_digests(split)})[:_NOTED])


def _cut_off(path: Path) -> bool:
    """Say whether a kill has cut off the last line."""
    return path.is_file() and not (path.read_bytes() or b"\n").endswith(b"\n")


def _met(path: Path, items: tuple[str, ...]) -> defaultdict[str, set[str]]:
    """Return the variants that each of these items has met."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    wanted = set(items)
    for entry in _entries(path):
        for item in wanted.intersection(map(str, entry["items"])):
            found[item].add(str(entry.get("variant")))
    return found


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that a kill cut off
        if isinstance(entry, dict) and isinstance(entry.get("items"), list):
            yield entry
