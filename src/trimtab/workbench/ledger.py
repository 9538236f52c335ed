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
        with disk_errors(path), path.open("a") as file:
            file.write(line + "\n")
    return len(seen | {variant_key})


def _looks(path: Path, split_digest: str) -> set[str]:
    if not path.is_file():
        return set()
    found = set()
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that a kill cut off
        if entry.get("split") == split_digest:
            found.add(str(entry.get("variant")))
    return found
