"""Every store that is found keeps the laws of a store."""

from trimtab.testing import StoreSuite, suites

globals().update(suites("stores", StoreSuite))
