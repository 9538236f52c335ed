"""How long whole searches take and where the time goes: python benchmarks/searches.py

Reads the results of the other benchmarks; run it after them.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pages
from trimtab.core.codec import loads
from trimtab.core.machine import machine
from trimtab.core.values import Machine

MOST_S = {"peers-digits": 90.0}
NAMES = ("peers-digits", "peers-mnist", "peers-mobilenet", "peers-minilm", "speed-resnet50", "speed-minilm", "spam")


def held(results: Path) -> dict[str, dict[str, Any]]:
    """Return what each benchmark that was run here said of its search, and its budget; other machines' are left out."""
    found = {}
    for path in (results / f"{name}.json" for name in NAMES):
        page = json.loads(path.read_text()) if path.is_file() else None
        if page is not None and loads(Machine, json.dumps(page["machine"])).digest == machine().digest:
            command = page["command"] if "command" in page else page["commands"][0]
            found[path.stem] = {**page["search"], "budget": budget(command)}
        elif page is not None:
            print(f"{path} is of another machine or other versions and is left out: run that benchmark again")
    return found


def budget(command: str) -> str:
    """Return the budget that a command was given, as it was typed."""
    words = shlex.split(command)
    return words[words.index("--budget") + 1]


def body(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the page."""
    columns = (
        "search", "budget", "s by the clock", "variants tried", "for the winner", "proof, final timing, measuring",
    )  # fmt: skip
    rows, lines = [], []
    for name, search in found.items():
        clock, most = search["seconds"], MOST_S.get(name, 600.0)
        shown = "continued" if clock is None else f"{clock:.0f}"
        shares = (f"{100 * search[part]:.0f} %" for part in ("winner", "final"))
        rows.append([name, search["budget"], shown, search["trials"], *shares])
        took = search["accounted_s"] if clock is None else clock
        told = f"{name}: {took:.0f} s with a budget of {search['budget']} (at most {most:.0f} s)"
        lines.append(pages.kept(took <= most, told))
    return [
        "From the start of `trimtab optimize` to its report, on the machine below; shares are of the time it accounts "
        "for itself.", "", *pages.table(columns, rows, right=(1, 2, 3, 4, 5)), "", *lines,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    found = held(given.results)
    if not found:
        raise SystemExit(f"there are no results in {given.results} yet: run the other benchmarks first (make bench)")
    pages.publish("searches", "Whole searches", body(found), {"searches": found}, given.results)


if __name__ == "__main__":
    main()
