"""How sure and how measured: the certificate, the protocol, the machine and the time spent, in plain words."""

from __future__ import annotations

from trimtab.core.values import Machine, Ratio, Result
from trimtab.reports import lineup, words

Facts = list[tuple[str, str]]
"""Pairs of a question and its answer."""

_INSTRUCTIONS = ("avx", "amx", "sse4", "neon", "sve", "asimd", "i8mm", "bf16")


def certificate(result: Result) -> Facts:
    """Return the certificate in plain words; nothing when there is none."""
    proven = result.certificate
    if proven is None:
        return []
    proof = proven.no_worse
    sure, risk = words.percent(1 - proof.error), words.percent(proof.error)
    groups = "" if proof.groups == proof.items else f" in {proof.groups:,} groups, which were resampled whole"
    seen = f"{words.label(proof.metric)} changed by {words.difference_words(proof)}"
    if lineup.classifies(result):
        seen += (
            f"; {proof.flips:,} answers changed, {proof.better:,} from wrong to right and {proof.worse:,} from right "
            "to wrong"
        )
    return [
        ("What is claimed", proven.claim),
        (
            "How sure",
            f"{sure}: a variant that loses more passes in at most {risk} of searches",
        ),
        ("On what", f"{words.plural(proof.items, 'item')}{groups}, which the search had never seen"),
        ("What was seen", seen),
        ("By which method", proof.method),
        ("How often these items were used", words.looks(proven.looks)),
        ("Data and original", f"data {proven.data[:16]}, model {proven.original[:16]}, seed {proven.seed}"),
        ("When", proven.time),
    ]


def measured(result: Result) -> Facts:
    """Return how it was measured: protocol, self-test, noise."""
    ratios, test = result.comparison.ratios, result.comparison.self_test
    said = "not run" if test is None else words.control_words(test, "a longer --budget")
    return [
        *(_protocol(ratios[0]) if ratios else []),
        ("Self-test, one variant against itself", said),
        *([("Noise audit", _noise(ratios))] if ratios else []),
    ]


def _protocol(ratio: Ratio) -> Facts:
    fresh = "one fresh process" if ratio.processes == 1 else f"{ratio.processes:,} fresh processes"
    spread = (
        "comes from resampling blocks, which can’t tell what differs from process to process"
        if ratio.processes == 1
        else "is Student’s t over processes, with the scatter of their medians or, where larger, of resampled blocks"
    )
    turns = (
        f"Variants took turns in {ratio.blocks:,} blocks of calls, in {fresh} a side; a ratio is their median, "
        f"and its interval ({words.percent(ratio.level)}) {spread}. No outlier was removed."
    )
    margin = f"differences below {words.percent(ratio.margin)} count as equivalent"
    return [("Protocol", turns), ("Cache", ratio.cache), ("Margin", margin)]


def _noise(ratios: tuple[Ratio, ...]) -> str:
    noises = [ratio.noise for ratio in ratios if ratio.noise is not None]
    if not noises:
        return "no processor times: an engine spins while it waits"
    return f"wall-clock ratios scatter {max(noises):.2f} times as much as processor-time ratios"


def machine(box: Machine) -> Facts:
    """Return the record of a machine."""
    load = [
        "" if box.load_average is None else f"load average {box.load_average:.2f}",
        "" if box.pressure is None else f"pressure {words.percent(box.pressure)}",
        "" if box.steal_s is None else f"steal {words.quantity(box.steal_s, 's')}",
    ]
    return [
        ("Processor", f"{box.cpu}, {words.plural(box.cores, 'core')}"),
        ("Instructions", ", ".join(flag for flag in box.flags if flag.startswith(_INSTRUCTIONS)) or "none recorded"),
        ("Memory", words.quantity(box.memory_bytes, "bytes")),
        ("Virtual machine", box.hypervisor or "none seen"),
        ("Frequency governor", box.governor or "not readable"),
        ("System", f"{box.system}, Python {box.python}"),
        ("Load while measuring", ", ".join(filter(None, load)) or "not readable"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in box.versions)),
    ]


def spent(result: Result) -> list[dict[str, str | float]]:
    """Return where the time went, with shares of the whole in percent; "of it …" is a part of the entry before it."""
    total = sum(seconds for name, seconds in result.spent if not name.startswith("of it"))
    shares = [(name, seconds, min(100 * seconds / total, 100.0)) for name, seconds in result.spent if total > 0]
    return [
        {"name": name, "time": words.duration(seconds), "share": share, "percent": f"{share:.0f} %"}
        for name, seconds, share in shares
    ]
