"""Loaded before any test: the shipped laws explain their failures as tests do, and properties draw the same examples.

`pytest --hypothesis-profile=default` draws new ones.
"""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("trimtab.testing")
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
