"""How long a search may go on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Budget:
    """Seconds and trials that a whole run may spend, what earlier parts of it already spent included.

    `reserve_s` is kept back for the final proof and timing.
    """

    seconds: float = 600.0
    trials: int | None = None
    spent_s: float = 0.0
    reserve_s: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Return the seconds spent so far."""
        return self.spent_s + time.monotonic() - self._start

    def left(self) -> float:
        """Return the seconds that the search may still spend, never negative."""
        return max(0.0, self.seconds - self.reserve_s - self.elapsed())

    def over(self, trials: int) -> bool:
        """Say whether no further trial may begin after that many."""
        return self.left() <= 0 or (self.trials is not None and trials >= self.trials)
