"""How long whole searches take and where the time goes: python benchmarks/searches.py

Reads the results of the other benchmarks; run it after them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pages

MOST_S = {"peers-digits": 90.0}
NAMES = ("peers-digits", "peers-mnist", "peers-mobilenet", "peers-minilm", "speed-resnet50", "speed-minilm", "spam")


def held(results: Path) -> dict[str, dict[str, Any]]:
    """Return what each benchmark that was run said about its search."""
    paths = {name: results / f"{name}.json" for name in NAMES}
    return {name: json.loads(path.read_text())["search"] for name, path in paths.items() if path.is_file()}


def body(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the page."""
    columns = ("search", "s by the clock", "variants tried", "for the winner", "proof, final timing, measuring")
    rows, lines = [], []
    for name, search in found.items():
        clock, most = search["seconds"], MOST_S.get(name, 600.0)
        shown = "continued" if clock is None else f"{clock:.0f}"
        rows.append(
            [name, shown, search["trials"], f"{100 * search['winner']:.0f} %", f"{100 * search['final']:.0f} %"]
        )
        took = search["accounted_s"] if clock is None else clock
        lines.append(pages.kept(took <= most, f"{name}: {took:.0f} s (at most {most:.0f})"))
    return [
        "From the start of `trimtab optimize` to its report, on the machine below; shares are of the time it accounts "
        "for itself.", "", *pages.table(columns, rows, right=(1, 2, 3, 4)), "", *lines,
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
