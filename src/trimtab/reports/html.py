"""One HTML file that holds everything: it opens offline, runs no foreign code and follows light and dark."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.core.files import write_text
from trimtab.core.values import Result
from trimtab.reports import figures, lineup, method, page, words
from trimtab.reports.figures import style
from trimtab.reports.scatter import scatter

_TITLES = {
    "tradeoff": "Scatter of every variant measured, with intervals and the Pareto front",
    "confusion": "Confusion matrices of the original and of the winner, and their difference",
    "bars": "Bars of latency, size and memory",
    "latency": "Box plot of the times of single calls",
    "radar": "Radar over all readings, outward is better",
    "throughput": "Throughput over batch size",
}

_DARK = """color-scheme: dark;
  --page: #101316; --paper: #181c20; --ink: #e8eaed; --muted: #9aa2ac; --line: #2e343b; --soft: #22272d;
  --given: #9aa3af; --untouched: #4ea8e6; --winner: #ff8a3c; --tried: #6c747e;
  --other-1: #2fc596; --other-2: #dc8fc6; --other-3: #e8b13f; --other-4: #7cc4ee;
  --better: #4cc79a; --worse: #d986c4; --link: #7ab8f0;
  --good-back: #143a2b; --good-ink: #8be0bb; --warn-back: #3d2e08; --warn-ink: #ffd98a; --warn-line: #d29a1a;
  --bad-back: #45201a; --bad-ink: #ffb4a6;"""
"""The dark page's colours; the style sheet needs them twice, for the system's choice and for the reader's."""


def render(result: Result, folder: Path | None = None) -> str:
    """Return the report of a search as one HTML document; logs inside `folder` are linked as seen from there."""
    from jinja2 import Environment, StrictUndefined

    templates = files("trimtab.reports") / "templates"
    parts = {
        name: (templates / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["variable"] = lambda colour: f"var({style.TOKENS[colour]})"
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "allow_nan": False}
    return environment.from_string(parts["report.html"]).render(
        style=parts["report.css"].replace("@DARK@", _DARK),
        script=parts["report.js"],
        policy=_policy(parts["report.js"]),
        **_content(result, folder),
    )


def write(result: Result, path: Path) -> Path:
    """Write the report of a search to a file and return its path."""
    write_text(path, render(result, path.parent))
    return path


def _content(result: Result, folder: Path | None) -> dict[str, Any]:
    """Return everything the template shows."""
    drawn = {name: style.inline_svg(figure, name, _TITLES[name]) for name, figure in figures.every(result).items()}
    winner = lineup.champion(result)
    return {
        "result": result,
        "model": result.as_given.variant.model.path.name if result.as_given.variant else "",
        "time": result.comparison.measurements[-1].time if result.comparison.measurements else "",
        "status": page.status(result),
        "failures": page.failures(result),
        "warnings": page.warnings(result),
        "goal": page.goal(result),
        "tiles": page.tiles(result),
        "baselines": page.baselines(result),
        "winner": winner.name if winner else None,
        "figures": drawn,
        "scatter": _finite(scatter(result)),
        "readings": page.readings(result),
        "classes": page.classes(result),
        "tried": page.tried(result, folder),
        "states": page.STATES,
        "certificate": method.certificate(result),
        "looks": words.looks(result.looks) if result.looks else "",
        "measured": method.measured(result),
        "change_level": words.percent(1 - 2 * result.goal.error),
        "machine": method.machine(result.machine),
        "spent": method.spent(result),
    }


def _policy(script: str) -> str:
    """Return a content security policy that lets our own script run and nothing else, and fetches nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    nothing = "default-src 'none'; base-uri 'none'; form-action 'none'"
    return f"{nothing}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _finite(value: Any) -> Any:
    """Return plain data in which what JSON can't say (infinite, undefined) is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
