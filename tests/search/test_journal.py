from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.values import Settings, Step, Trial
from trimtab.search.journal import Journal


def trial(name: str, seconds: float = 1.0, steps: tuple[Step, ...] = (), making_s: tuple[float, ...] = ()) -> Trial:
    settings = Settings(runtime="onnxruntime")
    return Trial(
        name=name, steps=steps, settings=settings, variant=None, state="kept", reason="", seconds=seconds,
        making_s=making_s,
    )  # fmt: skip


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


def test_bytes_that_are_no_text_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadInput, match=r"line 1 of .* is damaged; delete the folder .* to start afresh"):
        Journal(path)


@pytest.mark.parametrize("name", ["größe", "a\u2028b", "a\x85b", "a\nb", "量化", ""])
def test_any_name_survives_a_restart(tmp_path: Path, name: str) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add(trial(name))
    Journal(path).add(trial("next"))
    assert [kept.name for kept in Journal(path).trials] == [name, "next"]


def test_a_trial_that_is_added_again_replaces_the_first_in_its_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for seconds in (1.0, 2.0):
        journal.add(trial("a", seconds))
        journal.add(trial("b"))
    assert Journal(tmp_path / "journal.jsonl").trials == journal.trials == (trial("a", 2.0), trial("b"))


def test_making_counts_once_however_many_trials_share_what_was_made(tmp_path: Path) -> None:
    export, quantize = Step(technique="export-onnx"), Step(technique="static-int8")
    journal = Journal(tmp_path / "journal.jsonl")
    plain = trial("as given", 1.0)
    exported = [trial(f"export on {n}", 2.0, (export,), (10.0,)) for n in range(2)]
    quantized = [trial(f"int8 on {n}", 3.0, (export, quantize), (10.0, 100.0)) for n in range(3)]
    for each in (plain, *exported, *quantized):
        journal.add(each)
    assert journal.seconds == 1 + 2 * 2 + 3 * 3 + 10 + 100
    assert journal.cost(plain) == 1
    assert journal.cost(exported[0]) == 2 + 10
    assert journal.cost(quantized[0]) == 3 + 10 + 100, "every step that made it"
    assert Journal(tmp_path / "journal.jsonl").seconds == journal.seconds


def test_a_step_that_was_never_tried_alone_costs_what_it_took(tmp_path: Path) -> None:
    steps = (Step(technique="export-onnx"), Step(technique="static-int8"))
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(trial("a", 1.0, steps, (2.0, 3.0)))
    assert journal.cost(journal.trials[0]) == journal.seconds == 6.0


def test_a_folder_that_can_not_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't create the folder"):
        Journal(tmp_path / "file" / "journal.jsonl")
