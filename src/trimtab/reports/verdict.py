"""The sentence to read first: what was gained, against what, and how sure we are that nothing was lost."""

from __future__ import annotations

from trimtab.core.values import Certificate, Goal, NoWorse, Ratio, Reading, Trial
from trimtab.reports import words


def verdict(
    goal: Goal,
    *,
    winner: Trial | None,
    over_given: Ratio | None = None,
    over_untouched: Ratio | None = None,
    certificate: Certificate | None = None,
    reason: str = "",
    before: Reading | None = None,
    after: Reading | None = None,
) -> str:
    """Return the verdict sentence of a search.

    Args:
        goal: What was asked for.
        winner: The trial that is returned; None when no variant kept the goal.
        over_given: The final ratio of the winner over the model as given; None when they are the same.
        over_untouched: The final ratio of the winner over the best untouched variant; None when they are the same.
            Where that is the model as given, the two ratios are one and told once.
        certificate: What was proven; None when nothing was.
        reason: Why the goal is unmet; used when there is no winner.
        before: What the goal improves, read of the model as given, where that is no time (size, memory, MACs).
        after: The same, read of the winner.
    """
    if winner is None:
        because = f": {reason.rstrip('.')}" if reason else ""
        return f"No variant met the goal{because}. The model as given remains the one to use."
    compared = [(over_given, "the model as given"), (over_untouched, "the best untouched variant")]
    if over_given is not None and over_untouched is not None and over_given.baseline == over_untouched.baseline:
        compared = [(over_given, "the model as given, itself the best untouched variant")]
    faster = " and ".join(words.ratio_words(ratio, than) for ratio, than in compared if ratio is not None)
    gained = " and ".join(filter(None, (_improvement(before, after), faster and f"is {faster}")))
    if not gained:
        return f"Nothing tried was better than the model as given: {winner.name} stays."
    return f"{winner.name} {gained}; {_proof(goal, certificate)}."


def _improvement(before: Reading | None, after: Reading | None) -> str:
    """Return how far the goal's reading came: "brings size from 1.69 MB to 470 kB"."""
    if before is None or after is None or before.value is None or after.value is None or before.value == after.value:
        return ""
    return f"brings {words.label(after.name)} from {words.with_interval(before)} to {words.with_interval(after)}"


def _proof(goal: Goal, certificate: Certificate | None) -> str:
    """Return how sure we are that nothing was lost."""
    if goal.max_drop is None:
        return "speed only: nothing is proven about its quality"
    if certificate is None or not certificate.no_worse.proven:
        return f"not proven to stay within the allowed drop of {goal.max_drop:g}"
    proof = certificate.no_worse
    sure = words.percent(1 - proof.error)
    if proof.metric == "agreement":
        return (
            f"proven with {sure} confidence to answer at most {words.percent(proof.max_drop)} of the items differently "
            f"from the original ({proof.flips:,} of {proof.items:,} differed; there were no labels)"
        )
    allowed = words.amount(proof.max_drop, proof.metric)
    return f"proven with {sure} confidence to lose at most {allowed} of {words.label(proof.metric)} ({_seen(proof)})"


def _seen(proof: NoWorse) -> str:
    """Return what was seen on the items of the proof."""
    items = words.plural(proof.items, "item")
    if proof.difference == 0:
        return f"lost nothing on {items}"
    verb = "lost" if proof.difference < 0 else "gained"
    return f"{verb} {words.amount(abs(proof.difference), proof.metric)} on {items}"
