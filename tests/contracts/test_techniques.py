"""Every technique that is found keeps the laws of a technique."""

from trimtab.testing import TechniqueSuite, suites

globals().update(suites("techniques", TechniqueSuite))
