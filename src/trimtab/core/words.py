"""Quantities and limits as a person types them: "1pt", "10m", "5MB", "p99 <= 20ms"."""

from __future__ import annotations

import re

from trimtab.core.errors import BadInput
from trimtab.core.values import Limit

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_QUANTITY = re.compile(rf"^\s*{_NUMBER}\s*([a-zA-Zµμ%]*)\s*$")
_LIMIT = re.compile(r"^\s*([a-zA-Z][\w-]*)\s*(<=|>=)\s*(.+)$")

_TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES = {
    "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9,
    "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_SHARES = {"": 1.0, "pt": 0.01, "pts": 0.01, "%": 0.01}
_NO_SHARES = ("cost", "mse", "mae")  # metrics in money or in the labels' own unit, of any size

SHORT_NAMES = {
    "latency": "latency_p50",
    "mean": "latency_mean",
    "p50": "latency_p50",
    "p90": "latency_p90",
    "p99": "latency_p99",
    "size": "bytes",
    "compressed": "bytes_compressed",
    "memory": "peak_memory",
}
"""What people type for a reading, and its name."""

_UNITS = {
    "latency_mean": _TIMES, "latency_p50": _TIMES, "latency_p90": _TIMES, "latency_p99": _TIMES,
    "latency_end_to_end": _TIMES, "load_time": _TIMES, "first_call": _TIMES,
    "bytes": _SIZES, "bytes_compressed": _SIZES, "peak_memory": _SIZES,
    "macs": _COUNTS, "macs_nonzero": _COUNTS, "parameters": _COUNTS, "throughput": _COUNTS,
}  # fmt: skip


def reading_name(word: str) -> str:
    """Return the name of the reading that a person calls `word`."""
    return SHORT_NAMES.get(word, word)


def seconds(text: str) -> float:
    """Return a duration such as "90s", "10m" or "1h" in seconds; a bare number is in seconds."""
    return _quantity(text, {"": 1.0, **_TIMES}, "a duration such as 90s, 10m or 1h")


def drop(text: str, metric: str | None = None) -> float:
    """Return a drop of quality in the metric's unit: "1pt" is 0.01, one point; bare numbers stay as they are.

    Raises `BadInput` for points of a metric that has none, such as money, and for a drop that protects nothing.
    """
    if metric in _NO_SHARES:
        value = _quantity(
            text, {"": 1.0}, f"a drop of {metric}: give a number in its own unit, such as --max-drop 0.02"
        )
        if value <= 0:
            raise BadInput(f"--max-drop {text!r} is not above 0; type how much worse {metric} may get, such as 0.02")
        return value
    value = _quantity(text, _SHARES, "a drop such as 1pt (one point) or 0.5pt")
    if not 0 < value < 1:
        raise BadInput(f"--max-drop {text!r} allows nothing or everything; type 1pt for one point, which is 0.01")
    if value >= 0.5:
        raise BadInput(f"--max-drop {text!r} would allow to lose half of the quality; type 1pt for one point (0.01)")
    return value


def limit(text: str) -> Limit:
    """Return a limit such as "size <= 5MB" or "p99 <= 20ms"."""
    match = _LIMIT.match(text)
    if match is None:
        raise BadInput(f'--limit {text!r} is not understood; type it like "size <= 5MB" or "p99 <= 20ms"')
    name = reading_name(match[1])
    units = _UNITS.get(name, _SHARES)
    bound = _quantity(match[3], units, f"a bound for {name} in one of: {', '.join(u for u in units if u) or 'no unit'}")
    return Limit(reading=name, relation="<=" if match[2] == "<=" else ">=", bound=bound)


def costs(text: str) -> tuple[float, float]:
    """Return what a miss and a false alarm cost, from "miss=10, false-alarm=1"."""
    given: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        key = name.strip().replace("_", "-")
        if not equals or key not in ("miss", "false-alarm") or key in given:
            raise BadInput(f'--cost {text!r} is not understood; type it like "miss=10, false-alarm=1"')
        given[key] = _quantity(value, {"": 1.0}, "an amount of money without its currency")
    if len(given) != 2 or min(given.values()) < 0 or max(given.values()) == 0:
        raise BadInput(f'--cost {text!r} needs both amounts, none negative: "miss=10, false-alarm=1"')
    return given["miss"], given["false-alarm"]


def _quantity(text: str, units: dict[str, float], wanted: str) -> float:
    match = _QUANTITY.match(text)
    if match is None or match[2] not in units:
        raise BadInput(f"{text.strip()!r} is not {wanted}")
    return float(match[1]) * units[match[2]]
