from __future__ import annotations

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.memo import remembered
from trimtab.core.values import Limit

LIMIT = Limit(reading="bytes", relation="<=", bound=5e6)


def test_makes_a_value_once_and_reads_it_back_as_it_was(tmp_path):
    made: list[int] = []

    def make() -> Limit:
        made.append(1)
        return LIMIT

    path = tmp_path / "deep" / "limit.json"
    assert remembered(path, Limit, make) == remembered(path, Limit, make) == LIMIT
    assert made == [1]


def test_a_making_that_fails_leaves_nothing(tmp_path):
    def fail() -> Limit:
        raise BadInput("no")

    with pytest.raises(BadInput):
        remembered(tmp_path / "limit.json", Limit, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_value_says_which_file_to_delete(tmp_path):
    path = tmp_path / "limit.json"
    path.write_text('{"reading": "bytes"')
    with pytest.raises(BadInput, match=r"limit\.json is damaged.*delete it"):
        remembered(path, Limit, lambda: LIMIT)
    assert path.read_text().startswith("{"), "what is there may be looked at"
