"""The ledger of looks: how often a certify split has been tested on, across runs. Every look costs some trust."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from trimtab.core.files import disk_errors, home, make_folder


def look(split_digest: str, variant_key: str, run: Path) -> int:
    """Note that a variant was tested on a certify split; return how many different variants have been so far."""
    path = make_folder(home()) / "looks.jsonl"
    seen = _looks(path, split_digest)
    if variant_key not in seen:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"split": split_digest, "variant": variant_key, "run": str(run.resolve()), "time": now})
        with disk_errors(path), path.open("ab") as file:
            file.write(b"\n" * _cut_off(path) + line.encode() + b"\n")
    return len(seen | {variant_key})


def _cut_off(path: Path) -> bool:
    """Say whether a kill has cut off the last line."""
    return path.is_file() and not (path.read_bytes() or b"\n").endswith(b"\n")


def _looks(path: Path, split_digest: str) -> set[str]:
    if not path.is_file():
        return set()
    found = set()
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that a kill cut off
        if isinstance(entry, dict) and entry.get("split") == split_digest:
            found.add(str(entry.get("variant")))
    return found
