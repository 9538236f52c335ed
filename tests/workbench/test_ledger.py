from __future__ import annotations

import json

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.files import home
from trimtab.workbench.ledger import look


def test_different_variants_on_one_split_are_counted_across_runs(tmp_path):
    assert look("split", "a", tmp_path / "one") == 1
    assert look("split", "b", tmp_path / "one") == 2
    assert look("split", "c", tmp_path / "two") == 3
    assert look("other", "a", tmp_path / "two") == 1


def test_looking_again_at_the_same_variant_costs_nothing(tmp_path):
    assert [look("split", "a", tmp_path) for _ in range(3)] == [1, 1, 1]
    assert look("split", "b", tmp_path) == 2
    assert look("split", "a", tmp_path) == 2


def test_says_which_run_looked_when(tmp_path):
    look("split", "a", tmp_path / "run")
    (line,) = (home() / "looks.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["split"], entry["variant"], entry["run"]) == ("split", "a", str(tmp_path / "run"))
    assert entry["time"].endswith("+00:00")


def test_a_line_that_a_kill_cut_off_spoils_neither_the_past_nor_the_future(tmp_path):
    look("split", "a", tmp_path)
    path = home() / "looks.jsonl"
    path.write_text(path.read_text() + '{"split": "split", "var')
    assert look("split", "b", tmp_path) == 2
    assert look("split", "c", tmp_path) == 3


def test_a_home_that_can_not_be_written_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(BadInput, match="can't create the folder"):
        look("split", "a", tmp_path)
