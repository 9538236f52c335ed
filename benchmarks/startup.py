"""How long until trimtab answers? python benchmarks/startup.py [--runs 21]

`trimtab --help` and `trimtab inspect` against `python -c "import numpy"`, in turn, a fresh process each time. That no
framework is imported that isn't needed is also a test (tests/cli/test_startup.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import pages
from trimtab.assets import digits
from trimtab.stats.ratios import Estimate, ratio

WITHIN = 3.0
FRAMEWORKS = ("onnx", "onnxruntime", "openvino", "nncf", "torch", "transformers", "tokenizers")
HEAVY = ("sklearn", "scipy", "matplotlib", "seaborn")
PROBE = """
import sys
sys.argv = ["trimtab", *sys.argv[1:]]
from trimtab.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n@", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def commands() -> dict[str, list[str]]:
    """Return what is timed; the first one is what the others are held against."""
    trimtab = str(Path(sys.executable).with_name("trimtab"))
    return {
        'python -c "import numpy"': [sys.executable, "-c", "import numpy"],
        "trimtab --help": [trimtab, "--help"],
        "trimtab inspect digits.onnx": [trimtab, "inspect", str(digits().model)],
    }


def imported(*arguments: str) -> list[str]:
    """Return the frameworks and the heavy libraries that a command of trimtab imports."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("\n@")[2].split())
    return [name for name in (*FRAMEWORKS, *HEAVY) if name in loaded]


def seconds(command: list[str]) -> float:
    """Run a command and return how long it took."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measured(runs: int) -> dict[str, list[float]]:
    """Return the seconds of every command in every run; each run times all of them in random order."""
    rng = np.random.default_rng(0)
    known = commands()
    for command in known.values():
        seconds(command)  # the files come into the cache, which is how people start it the second time
    found: dict[str, list[float]] = {name: [0.0] * runs for name in known}
    for run in range(runs):
        for name in rng.permutation(list(known)):
            found[name][run] = seconds(known[name])
    return found


def estimates(found: dict[str, list[float]]) -> dict[str, Estimate]:
    """Return the ratio of each command to the first one: the median over runs, every run a process of its own."""
    first, *others = found
    return {name: ratio([found[name]], [found[first]]) for name in others}


def body(found: dict[str, list[float]], ratios: dict[str, Estimate], loaded: dict[str, list[str]]) -> list[str]:
    """Return the page."""
    rows = []
    for name, times in found.items():
        told = ratios.get(name)
        shown = "1" if told is None else f"{told.value:.2f}× ({told.low:.2f} to {told.high:.2f})"
        rows.append([f"`{name}`", f"{np.median(times):.3f}", shown, ", ".join(loaded.get(name, ["numpy"])) or "none"])
    start, inspect = ratios["trimtab --help"], ratios["trimtab inspect digits.onnx"]
    bare, look = (set(loaded[name]) & set(FRAMEWORKS) for name in ("trimtab --help", "trimtab inspect digits.onnx"))
    columns = ("command", "median s", "ratio (95 %)", "frameworks and heavy libraries imported")
    return [
        *pages.table(columns, rows, right=(1, 2)), "",
        pages.kept(start.high <= WITHIN, f"start-up within {WITHIN:g}× of importing numpy: {start.value:.2f}× "
                   f"({start.low:.2f} to {start.high:.2f}, {start.blocks} pairs of fresh processes)"),
        pages.kept(not bare, "`trimtab --help` imports no framework"),
        pages.kept(look <= {"onnx"}, "`trimtab inspect` of an ONNX model imports no framework but onnx"),
        f"- beside the figure: `trimtab inspect`, which reads a model, takes {inspect.value:.2f}× the time of "
        f"importing numpy ({inspect.low:.2f} to {inspect.high:.2f}); it imports "
        f"{', '.join(sorted(look)) or 'no framework'}", "",
        "```sh", "python benchmarks/startup.py", "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21, help="fresh processes of each command, at least 15 to publish")
    parser.add_argument("--results", type=Path, default=pages.RESULTS)
    given = parser.parse_args()
    pages.own_home()
    found = measured(given.runs)
    ratios = estimates(found)
    loaded = {
        "trimtab --help": imported("--help"),
        "trimtab inspect digits.onnx": imported("inspect", str(digits().model)),
    }
    data = {"seconds": found, "ratios": {name: vars_of(told) for name, told in ratios.items()}, "imported": loaded}
    pages.publish("startup", "Start-up", body(found, ratios, loaded), data, given.results)


def vars_of(told: Estimate) -> dict[str, object]:
    """Return an estimate as a plain dictionary, without the verdict against a margin that nobody asked for."""
    return {"value": told.value, "low": told.low, "high": told.high, "level": told.level, "runs": told.blocks}


if __name__ == "__main__":
    main()
