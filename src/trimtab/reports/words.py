"""Numbers as a person reads them: SI prefixes, as many digits as the interval carries, the interval beside them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from trimtab.core.values import NoWorse, Ratio, Reading

_AVERAGES = ("", "_macro", "_micro", "_weighted")
_SHARES = {name + average for name in ("accuracy", "precision", "recall", "f1") for average in _AVERAGES}
_SHARES |= {"top5", "agreement", "macs_coverage"}
"""Readings between 0 and 1 that people say in percent and whose differences they say in points."""

_LABELS = {
    "relative_time": "time against as given",
    "latency_mean": "mean latency",
    "latency_p50": "median latency",
    "latency_p90": "p90 latency",
    "latency_p99": "p99 latency",
    "latency_end_to_end": "end-to-end latency",
    "cpu_use": "processor use",
    "bytes": "size",
    "bytes_compressed": "compressed size",
    "compression_bytes": "compression (bytes)",
    "compression_parameters": "compression (parameters)",
    "macs": "MACs",
    "peak_macs": "peak MACs",
    "macs_nonzero": "non-zero MACs",
    "macs_coverage": "share of operators counted",
    "top5": "top-5 accuracy",
    "roc_auc": "ROC AUC",
    "pr_auc": "precision-recall AUC",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
    "agreement": "agreement with the original",
    "cosine": "cosine similarity",
}

_UPPER_BOUNDS = ("latency_p90", "latency_p99")
"""Readings whose value is an upper bound, the upper end of their interval; the lower end is the percentile as seen."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_BYTES = ("bytes", "byte", "B")
_RATES = ("MAC/s", "B/s")
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_MACS = ((1e9, "GMACs"), (1e6, "MMACs"), (1e3, "kMACs"), (1.0, "MACs"))
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit to show numbers in: what is shown is the number divided by `factor`, followed by `symbol`."""

    factor: float = 1.0
    symbol: str = ""


def scale(name: str, unit: str, value: float) -> Scale:
    """Return the unit in which a reading of that size is easiest to read."""
    if name in _SHARES:
        return Scale(0.01, "%")
    if name.endswith("_change") and is_share(name.removesuffix("_change")):
        return Scale(0.01, "pt")
    if name == "relative_time":
        return Scale(1.0, "×")
    if unit in _RATES:
        made = _fitting(_SIZES if unit == "B/s" else _MACS, value)
        return Scale(made.factor, f"{made.symbol}/s")
    if unit == "s":
        return _fitting(_TIMES, value)
    if unit in _BYTES:
        return _fitting(_SIZES, value)
    if name.startswith("macs"):
        return _fitting(_MACS, value)
    if name == "parameters":
        return _fitting(_COUNTS, value)
    symbol = "items/s" if name == "throughput" else "" if unit == "1" else unit
    return Scale(1.0, "×" if name.startswith("compression") else symbol)


def label(name: str, place: str | None = None) -> str:
    """Return what a reading is called in a sentence: `latency_p50` is "median latency"."""
    base = name.removesuffix("_change")
    said = f"change of {label(base)}" if base != name else _LABELS.get(name) or name.replace("_", " ")
    return f"{said}, {place}" if place else said


def printable(text: str) -> str:
    """Return a text without what a terminal obeys (escape codes, line ends): names may come from strangers."""
    return _CONTROL.sub("�", text)


def quantity(value: float, unit: str, name: str = "") -> str:
    """Return one number with its unit, three digits that count: 0.00123 seconds are "1.23 ms"."""
    shown = scale(name, unit, value)
    return _with_unit(_number(value / shown.factor, _decimals(value / shown.factor)), shown)


def interval(reading: Reading) -> str:
    """Return the interval of a reading in the unit its value is shown in, "" when it has none.

    Of an upper bound it is how sure the bound is, and the percentile that was seen.
    """
    if reading.value is None or reading.low is None or reading.high is None:
        return ""
    metric = reading.name.removesuffix("_change")
    if metric != reading.name:
        between = _differences(reading.low, reading.high, metric)
    else:
        shown, digits = _look(reading, reading.value)
        low, high = (_number(bound / shown.factor, digits) for bound in (reading.low, reading.high))
        if reading.name in _UPPER_BOUNDS:
            return f"{percent(reading.level)} sure; seen {low}"
        between = f"{low}{' to ' if reading.low < 0 else '–'}{high}"
    return between if reading.level == 0.95 else f"{between} at {percent(reading.level)}"


def value(reading: Reading) -> str:
    """Return the value of a reading with its unit; in words when it is unavailable."""
    if reading.value is None:
        return "n too small" if reading.name in _UPPER_BOUNDS else "unavailable"
    metric = reading.name.removesuffix("_change")
    if metric != reading.name:
        return amount(reading.value, metric, signed=True)
    shown, digits = _look(reading, reading.value)
    if reading.unit in ("1", "bit") and reading.provenance == "counted" and shown.factor == 1.0:
        digits = 0 if float(reading.value).is_integer() else digits
    mark = "at most " if reading.name in _UPPER_BOUNDS else "≈ " * (reading.provenance in ("modelled", "assumed"))
    return mark + _with_unit(_number(reading.value / shown.factor, digits), shown)


def evidence(reading: Reading) -> str:
    """Return what stands behind a number: its interval, the exact count, or why there is neither."""
    if reading.value is None:
        return reading.scope
    between = interval(reading)
    if between:
        return between if reading.provenance == "measured" else f"{between} {reading.provenance}"
    if reading.provenance == "counted":
        rounded = reading.unit not in _BYTES and abs(reading.value) >= 1000 and float(reading.value).is_integer()
        return f"{reading.value:,.0f}" if rounded else "exact"
    return "no interval" if reading.provenance == "measured" else reading.provenance


def with_interval(reading: Reading) -> str:
    """Return a reading in one line: "1.23 ms (1.20–1.26)"."""
    behind = evidence(reading)
    exact = reading.provenance == "counted" or not behind
    return value(reading) if exact else f"{value(reading)} ({behind})"


def speedup(ratio: Ratio) -> tuple[float, float, float]:
    """Return a ratio of times turned so that above 1 is better, with its interval (low, high)."""
    return 1 / ratio.value, 1 / ratio.high, 1 / ratio.low


def factor(ratio: Ratio) -> str:
    """Return how many times faster ("2.31×"), or, where the verdict is that it is slower, how many times slower."""
    gain, low, high = _turned(ratio)
    return f"{_number(gain, _digits(gain, (high - low) / 2))}×"


def factor_interval(ratio: Ratio) -> str:
    """Return the interval of `factor`: "2.25–2.38"."""
    gain, low, high = _turned(ratio)
    digits = _digits(gain, (high - low) / 2)
    return f"{_number(low, digits)}–{_number(high, digits)}"


def _turned(ratio: Ratio) -> tuple[float, float, float]:
    return (ratio.value, ratio.low, ratio.high) if ratio.verdict == "slower" else speedup(ratio)


def verdict_word(ratio: Ratio) -> str:
    """Return the verdict in one word: faster, slower, equivalent or undecided."""
    return "undecided" if ratio.verdict == "inconclusive" else ratio.verdict


def ratio_words(ratio: Ratio, than: str) -> str:
    """Return a ratio with its verdict and interval: "2.31× faster (2.25–2.38) than the other"."""
    between = factor_interval(ratio)
    if ratio.verdict == "equivalent":
        return f"as fast as {than} ({factor(ratio)}, {between})"
    if ratio.verdict == "inconclusive":
        return f"not measurably different from {than} ({factor(ratio)}, {between}: undecided)"
    return f"{factor(ratio)} {ratio.verdict} ({between}) than {than}"


def control_words(test: Ratio, longer: str) -> str:
    """Return what a control, a model timed against itself, says of its run; `longer` is what such a run takes more of.

    A control fails only where it sees a difference. An interval wider than the margin says how small a difference
    the run could have seen.
    """
    seen = f"{factor(test)} ({factor_interval(test)})"
    if test.verdict in ("faster", "slower"):
        return f"{seen}, {test.verdict}: it failed; rely on no ratio of this run, time again on a quieter machine"
    if test.verdict == "equivalent":
        return f"{seen}: no difference, as it should be"
    room = percent(max(test.high, 1 / test.low) - 1)
    return f"{seen}: no difference seen, as it should be, but noise leaves room for {room}; with {longer} it narrows"


def is_share(metric: str) -> bool:
    """Say whether differences of a metric are said in points (hundredths)."""
    return metric in _SHARES or metric.startswith("agreement")


def amount(difference: float, metric: str, signed: bool = False) -> str:
    """Return a difference of quality in the words of its metric: 0.012 of accuracy is "1.2 pt"."""
    shown = difference * 100 if is_share(metric) else difference
    digits = 2 if is_share(metric) and 0 < abs(shown) < 0.995 else 1 if is_share(metric) else _decimals(shown)
    return _signed(shown, digits, signed) + " pt" * is_share(metric)


def difference_interval(proof: NoWorse) -> str:
    """Return the interval of a difference of quality with its level: "−0.42 to +0.21 at 90 %".

    Its lower end is the bound that is proven with 95 % confidence: a bound of one side takes half the risk of two.
    """
    return f"{_differences(proof.low, proof.high, proof.metric)} at {percent(1 - 2 * proof.error)}"


def difference_words(proof: NoWorse) -> str:
    """Return the difference of quality with its interval: "−0.10 pt (−0.42 to +0.21 at 90 %)"."""
    return f"{amount(proof.difference, proof.metric, signed=True)} ({difference_interval(proof)})"


def proof_words(proof: NoWorse, name: str, other: str) -> str:
    """Return what is proven of a variant, or not: "a is proven with 95 % confidence to lose at most 1.0 pt of …"."""
    sure = f"proven with {percent(1 - proof.error)} confidence" if proof.proven else "not proven"
    allowed = f"{amount(proof.max_drop, proof.metric)} of {label(proof.metric)}"
    seen = f"{difference_words(proof)} on {plural(proof.items, 'item')}"
    unit = "group" if proof.groups < proof.items else "item"
    needed = f"; about {plural(proof.needed, unit)} would decide" if proof.needed and not proof.proven else ""
    return f"{name} is {sure} to lose at most {allowed} against {other}: {seen}{needed}"


def looks(count: int) -> str:
    """Return how often the items of a proof have been used, and what that means."""
    return "once" if count == 1 else f"{count:,} times, earlier runs included: every look weakens the claim a little"


def percent(share: float) -> str:
    """Return a share in percent, without digits that say nothing: 0.95 is "95 %"."""
    return f"{_number(share * 100, 0 if math.isclose(share * 100, round(share * 100)) else 1)} %"


def shortened(text: str, most: int = 64) -> str:
    """Return a text as a table of a terminal shows it: of one longer than so many characters the beginning."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """Return how long something took, in the words of a clock: "2 min 5 s"."""
    if seconds < 100:
        return quantity(seconds, "s") if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def plural(number: int, noun: str) -> str:
    """Return a count of things: "1,200 items", "1 item"."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def _fitting(scales: tuple[tuple[float, str], ...], value: float) -> Scale:
    size = abs(value)
    if not math.isfinite(size) or size == 0:
        return Scale(*next(pair for pair in scales if pair[0] == 1.0))
    return Scale(*next((pair for pair in scales if size >= pair[0] * 0.9995), scales[-1]))


def _decimals(shown: float) -> int:
    if not math.isfinite(shown) or shown == 0:
        return 0
    return min(max(2 - math.floor(math.log10(abs(shown) * 1.0005)), 0), 8)


def _digits(shown: float, half_width: float) -> int:
    """Return the decimals that show three digits, or one more where the interval is finer than that."""
    digits = _decimals(shown)
    return digits + 1 if 0 < half_width < 0.5 * 10.0**-digits else digits


def _look(reading: Reading, value: float) -> tuple[Scale, int]:
    """Return the unit and the decimals in which a reading and its interval are shown."""
    shown = scale(reading.name, reading.unit, value)
    half_width = 0.0 if reading.low is None or reading.high is None else (reading.high - reading.low) / 2
    return shown, _digits(value / shown.factor, half_width / shown.factor)


def _differences(low: float, high: float, metric: str) -> str:
    """Return the interval of a difference without its unit: "−0.42 to +0.21"."""
    turn = 100 if is_share(metric) else 1
    digits = 2 if is_share(metric) else _decimals(max(abs(low), abs(high)))
    return f"{_signed(low * turn, digits, True)} to {_signed(high * turn, digits, True)}"


def _signed(shown: float, digits: int, signed: bool) -> str:
    return f"+{_number(shown, digits)}" if signed and shown > 0 else _number(shown, digits)


def _number(shown: float, digits: int) -> str:
    if not math.isfinite(shown):
        return "∞" if shown > 0 else "−∞" if shown < 0 else "undefined"
    return f"{shown:z,.{digits}f}".replace("-", "−")  # z: what rounds to zero has no sign


def _with_unit(number: str, shown: Scale) -> str:
    glue = "" if shown.symbol == "×" else " "
    return f"{number}{glue}{shown.symbol}".rstrip()
