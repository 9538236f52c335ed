"""Every technique that is found keeps the laws of a technique."""

from trimtab.core.values import options
from trimtab.testing import TechniqueSuite, suites

_OPTIONS = {
    "factorize": options(energy=0.5),
    "fine-tune": options(batch=8, epochs=1),
    "qat": options(batch=8, epochs=1),
    "sparsify": options(batch=8, epochs=1),
}
"""Random weights have no structure that a low rank would keep: factors save products only where much is lost."""

for _name, _suite in suites("techniques", TechniqueSuite).items():
    _suite.options = _OPTIONS.get(_suite.plugin.name, ())
    globals()[_name] = _suite
