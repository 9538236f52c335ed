"""Calls a session until its times have settled."""

from __future__ import annotations

import numpy as np

from trimtab.core.protocols import Arrays, Session
from trimtab.stats import steady


def warm_up(
    session: Session, inputs: Arrays, timeout_s: float | None = None, most_s: float = steady.MOST_SECONDS
) -> tuple[float, steady.State]:
    """Call until two successive windows of calls agree; return the median seconds of a call and what became of it.

    `timeout_s` bounds each window of 20 calls, `most_s` all of them together. A session that still is "warming" when
    these seconds are over was not called often enough to tell.
    """
    times: list[float] = []
    window = 1
    while (found := steady.state(times)) == "warming" and (len(times) < steady.FEWEST_CALLS or sum(times) < most_s):
        times.extend(session.time(inputs, window, timeout_s).wall_ns / 1e9)
        window = steady.WINDOW if times[-1] < 0.1 else 1
    return float(np.median(times[-steady.WINDOW :])), found
