"""Every format that is found keeps the laws of a format."""

from trimtab.testing import FormatSuite, suites

globals().update(suites("formats", FormatSuite))
