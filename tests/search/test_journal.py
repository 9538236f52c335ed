from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Settings, Trial
from trimtab.search.journal import Journal


def trial(name: str, seconds: float = 1.0) -> Trial:
    settings = Settings(runtime="onnxruntime")
    return Trial(name=name, steps=(), settings=settings, variant=None, state="kept", reason="", seconds=seconds)


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "work" / "journal.jsonl")
    assert len(journal) == 0
    assert journal.trials == ()
    assert journal.get("a") is None


def test_trials_are_read_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for name in ("b", "a", "c"):
        journal.add(trial(name))
    assert Journal(tmp_path / "journal.jsonl").trials == (trial("b"), trial("a"), trial("c"))


def test_seconds_add_up_over_restarts(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.jsonl").add(trial("a", 2.5))
    again = Journal(tmp_path / "journal.jsonl")
    again.add(trial("b", 1.0))
    assert again.seconds == 3.5


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_a_kill_cut_off_is_dropped_and_the_rest_counts(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(trial("a"))
    journal.add(trial("b"))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert again.trials == (trial("a"),)
    again.add(trial("c"))
    assert Journal(path).trials == (trial("a"), trial("c"))


def test_damage_in_the_middle_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add(trial("a"))
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(BadInput, match=r"line 1 of .* is damaged"):
        Journal(path)
