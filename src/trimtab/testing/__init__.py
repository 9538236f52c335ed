"""For authors of plug-ins: the laws that every plug-in keeps, and fakes and samples with known truth.

A suite is a class of tests that pytest runs; subclass the one of your seam and name your class `Test…`:

    from my_package import Prune
    from trimtab.testing import TechniqueSuite

    class TestPrune(TechniqueSuite):
        plugin = Prune
"""

from trimtab.testing.fakes import FakeProcessSession, FakeSession
from trimtab.testing.formats import FormatSuite
from trimtab.testing.laws import suites
from trimtab.testing.meters import MeterSuite, check_readings
from trimtab.testing.networks import CONVOLUTION, PERCEPTRON, TOKENS, Network
from trimtab.testing.runtimes import RuntimeSuite
from trimtab.testing.samples import Sample, samples, source, task
from trimtab.testing.stores import StoreSuite, measurement
from trimtab.testing.techniques import TechniqueSuite
from trimtab.testing.trackers import TrackerSuite

__all__ = [
    "CONVOLUTION",
    "PERCEPTRON",
    "TOKENS",
    "FakeProcessSession",
    "FakeSession",
    "FormatSuite",
    "MeterSuite",
    "Network",
    "RuntimeSuite",
    "Sample",
    "StoreSuite",
    "TechniqueSuite",
    "TrackerSuite",
    "check_readings",
    "measurement",
    "samples",
    "source",
    "suites",
    "task",
]
