"""What the benchmarks share: a journal that survives a kill, tables in Markdown, and the results they publish."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trimtab
from trimtab.core.codec import to_plain
from trimtab.core.files import digest_files, make_folder, write_text
from trimtab.core.machine import machine as this_machine
from trimtab.core.values import Machine, Ratio, content_digest

HERE = Path(__file__).resolve().parent
TRIMTAB = Path(trimtab.__file__).resolve().parent
WORK = HERE / "work"
RESULTS = HERE / "results"
Row = dict[str, Any]


def own_home() -> None:
    """Keep what outlives a run (the ledger of looks) beside the benchmarks' work, apart from the user's own."""
    os.environ.setdefault("TRIMTAB_HOME", str(WORK / "home"))


def sources(*paths: Path) -> str:
    """Return the digest of source files; a folder stands for all code below it."""
    return digest_files(file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path]))


def stamp(*parts: object) -> str:
    """Return a digest of what a number hangs on: this machine, its software, the code of trimtab, and the parts given.

    What is kept is kept under it, so that no page tells numbers of another machine, version or code beside today's.
    Paths among the parts stand for the code in them.
    """
    told = [sources(part) if isinstance(part, Path) else part for part in parts]
    return content_digest(this_machine().digest, sources(TRIMTAB), told)[:12]


class Journal:
    """Finished pieces of work by key, one JSON line each; a line that a kill cut off is done again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows = {row["key"]: row for row in _whole_lines(path)}

    def once(self, key: str, make: Callable[[], Row]) -> Row:
        """Return the row of that key, made now when it is missing."""
        if key not in self.rows:
            row = {"key": key, **make()}
            make_folder(self._path.parent)
            cut_off = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")
            with self._path.open("a") as file:
                file.write(("\n" if cut_off and self._path.stat().st_size else "") + json.dumps(row) + "\n")
            self.rows[key] = row
        return self.rows[key]


def _whole_lines(path: Path) -> Iterator[Row]:
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "key" in row:
            yield row


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> list[str]:
    """Return a Markdown table; the columns whose numbers are in `right` are set flush right."""
    marks = ["---:" if index in right else "---" for index in range(len(columns))]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if any(len(row) != len(columns) for row in cells):
        raise ValueError(f"every row needs {len(columns)} cells")
    return [f"| {' | '.join(line)} |" for line in (list(columns), marks, *cells)]


def struck(text: object) -> str:
    """Return a cell struck through, empty when there is nothing to strike."""
    return f"~~{text}~~" if str(text) else ""


def times(ratio: Ratio) -> str:
    """Return a ratio of times with its interval."""
    return f"{ratio.value:.3f}× ({ratio.low:.3f} to {ratio.high:.3f})"


def faster(ratio: Ratio) -> str:
    """Return a ratio of times as a speed-up with its interval."""
    return f"{1 / ratio.value:.2f}× ({1 / ratio.high:.2f} to {1 / ratio.low:.2f})"


def kept(condition: bool, text: str) -> str:
    """Return a line that says whether a figure was met."""
    return f"- **{'met' if condition else 'NOT met'}**: {text}"


def machine_lines(machine: Machine) -> list[str]:
    """Return in words which computer and which software the numbers are from."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions)
    flags = ", ".join(flag for flag in machine.flags if flag.startswith(("amx", "avx512_", "avx_vnni"))) or "none"
    where = f" under {machine.hypervisor}" if machine.hypervisor else ""
    load = "" if machine.load_average is None else f"; load average {machine.load_average:.2f} when this was written"
    return [
        f"Machine: {machine.cpu}, {machine.cores} cores ({flags}), {machine.memory_bytes / 1e9:.0f} GB{where}{load}.",
        f"Software: {machine.python}, {versions}.",
    ]


def from_root(text: str) -> str:
    """Return a text with the paths below the repository told from its root."""
    return text.replace(f"{HERE.parent}{os.sep}", "")


def publish(name: str, title: str, body: Sequence[str], data: Mapping[str, Any], results: Path | None = None) -> None:
    """Write `results/<name>.md` for people and `results/<name>.json` for programs, and print the page.

    Paths are told from the root of the repository, where the commands are meant to be run.
    """
    folder = RESULTS if results is None else results
    machine = this_machine()
    page = from_root("\n".join([f"# {title}", "", *body, "", *machine_lines(machine)]) + "\n")
    held = json.dumps({**data, "machine": machine}, indent=1, ensure_ascii=False, default=to_plain)
    write_text(folder / f"{name}.json", from_root(held + "\n"))
    write_text(folder / f"{name}.md", page)
    print(page)
