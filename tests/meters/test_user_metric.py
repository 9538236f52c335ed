from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.meters.user_metric import RESAMPLES, user_metric, user_reading

OWN = """
import numpy as np
seen = []

def mean(labels, outputs):
    return outputs.mean()

def watch(labels, outputs):
    seen.append(labels.copy())
    return np.float32(len(labels))

def tensor(labels, outputs):
    return np.array(0.25)

def text(labels, outputs):
    return "0.5"

def nothing(labels, outputs):
    return None

def several(labels, outputs):
    return np.zeros(2)

def infinite(labels, outputs):
    return np.inf

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_numbers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "own_numbers"


def test_anything_that_is_one_number_is_taken(own):
    zeros = np.zeros(3)
    assert [user_metric(f"{own}:{name}")(zeros, zeros) for name in ("mean", "tensor", "text")] == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "returned None: return one number"),
        ("several", "return one number"),
        ("infinite", "returned inf: return a finite number"),
        ("number", "is not a function"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_is_no_number_is_one_clear_line(own, name, message):
    with pytest.raises(BadInput, match=message) as caught:
        user_metric(f"{own}:{name}")(np.zeros(3), np.zeros(3))
    assert "\n" not in str(caught.value)


def test_the_interval_is_that_of_the_textbook_and_holds_the_value(own):
    values = np.random.default_rng(0).normal(size=400)
    reading = user_reading(f"{own}:mean", values, values, None, "select split")
    assert (reading.name, reading.value, reading.samples) == (f"{own}:mean", values.mean(), 400)
    width = 1.96 * values.std() / np.sqrt(400)
    assert (reading.low, reading.high) == pytest.approx(
        (values.mean() - width, values.mean() + width), abs=0.25 * width
    )
    assert (reading.scope, reading.direction) == ("select split", "higher")
    again = user_reading(f"{own}:mean", values, values, None, "select split")
    assert (again.low, again.high) == (reading.low, reading.high)


def test_groups_are_drawn_whole_and_as_many_as_there_are(own):
    groups = np.array(["b", "a", "b", "c", "c", "c"])
    user_reading(f"{own}:watch", np.arange(6), np.zeros(6), groups, "")
    import own_numbers  # the module that was just imported

    first, *drawn = own_numbers.seen
    assert first.tolist() == list(range(6))
    assert len(drawn) == RESAMPLES
    for rows in drawn:
        times = np.bincount(rows, minlength=6)
        assert times[0] == times[2]
        assert times[3] == times[4] == times[5]
        assert times[0] + times[1] + times[3] == 3, "three groups are drawn"
