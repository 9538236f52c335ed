"""Loaded before any test: the shipped laws explain their failures as tests do."""

import pytest

pytest.register_assert_rewrite("trimtab.testing")
