"""Every meter that is found keeps the laws of a meter."""

from trimtab.testing import MeterSuite, suites

globals().update(suites("meters", MeterSuite))
