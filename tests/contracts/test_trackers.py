"""Every tracker that is found keeps the laws of a tracker."""

from trimtab.testing import TrackerSuite, suites

globals().update(suites("trackers", TrackerSuite))
