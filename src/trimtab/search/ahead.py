"""What a search will most likely ask for, begun on a cluster before it does."""

from __future__ import annotations

from trimtab.core.values import Step
from trimtab.search.making import begin
from trimtab.search.plan import Toolbox, learns, lossless, needs_training, trains
from trimtab.search.race import Race

_LATER = (lossless, trains, needs_training, learns)


def begin_ahead(race: Race, tools: Toolbox) -> None:
    """Begin what every technique makes of the original by its defaults, on the cluster of a race, if it has one.

    Left out is what is made in a moment (exports), and what hangs on something that was made or found out before: whom
    training changes, and how.
    """
    if race.cluster is None:
        return
    for technique in tools.techniques:
        later = any(each(technique) for each in _LATER) or hasattr(technique, "rescue")
        if not later and getattr(technique, "saves", None) is None:
            begin(race.shop, race.shop.original, Step(technique=technique.name), race.budget.left(), race.cluster)
