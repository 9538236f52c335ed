"""Every runtime that is found keeps the laws of a runtime."""

import pytest

from trimtab.testing import RuntimeSuite, suites

_SLOW_S = 10.0

for _name, _suite in suites("runtimes", RuntimeSuite).items():
    _slow = getattr(_suite.plugin, "startup_s", 0.0) > _SLOW_S
    globals()[_name] = pytest.mark.slow(_suite) if _slow else _suite
