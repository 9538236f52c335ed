from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.core.errors import BadInput
from trimtab.core.files import home
from trimtab.core.values import Split
from trimtab.data.arrays import save_array
from trimtab.workbench.ledger import look, looks

Of = Callable[..., Split]
ITEMS = np.random.default_rng(0).normal(size=(4000, 3))


@pytest.fixture
def of(tmp_path: Path) -> Of:
    """Return a split of some of the items, in the order given."""

    def make(rows: Any) -> Split:
        items = ITEMS[rows]
        folder = tmp_path / f"split{len(list(tmp_path.glob('split*')))}"
        folder.mkdir()
        return Split(
            name="certify",
            inputs=(save_array("x", folder / "x.npy", items),),
            rows=save_array("rows", folder / "rows.npy", np.arange(len(items))),
            labels=save_array("labels", folder / "labels.npy", (items[:, 0] > 0).astype(np.int64)),
        )

    return make


def test_different_variants_on_one_split_are_counted_across_runs(of, tmp_path):
    split, other = of(slice(0, 100)), of(slice(100, 200))
    assert looks(split) == 0
    assert look(split, "a", tmp_path / "one") == 1
    assert look(split, "b", tmp_path / "one") == 2
    assert look(split, "c", tmp_path / "two") == 3
    assert look(other, "a", tmp_path / "two") == 1
    assert (looks(split), looks(other)) == (3, 1)


def test_looking_again_at_the_same_variant_costs_nothing(of, tmp_path):
    split = of(slice(0, 100))
    assert [look(split, "a", tmp_path) for _ in range(3)] == [1, 1, 1]
    assert look(split, "b", tmp_path) == 2
    assert look(split, "a", tmp_path) == 2
    assert len((home() / "looks.jsonl").read_text().splitlines()) == 2


def test_another_order_of_the_same_items_starts_no_new_count(of, tmp_path):
    look(of(slice(0, 1000)), "a", tmp_path)
    assert look(of(np.random.default_rng(1).permutation(1000)), "b", tmp_path) == 2


@pytest.mark.parametrize("items", [300, 1000, 3000])
def test_another_seed_or_budget_draws_items_that_were_looked_at(of, tmp_path, items):
    whole = np.random.default_rng(2).permutation(4000)
    look(of(whole[:3000]), "a", tmp_path)
    look(of(np.random.default_rng(3).permutation(4000)[:3000]), "b", tmp_path)
    assert look(of(np.random.default_rng(4).permutation(4000)[:items]), "c", tmp_path) == 3


def test_the_most_looks_that_any_item_has_had_count(of, tmp_path):
    look(of(slice(0, 100)), "a", tmp_path)
    look(of(slice(100, 200)), "b", tmp_path)
    assert look(of(slice(50, 150)), "c", tmp_path) == 2, "no item has met both before"


def test_items_of_other_labels_are_others(of, tmp_path):
    split = of(slice(0, 100))
    look(split, "a", tmp_path)
    plain = Split(name="certify", inputs=split.inputs, rows=split.rows)
    assert looks(plain) == 0


def test_says_which_run_looked_when(of, tmp_path):
    look(of(slice(0, 10)), "a", tmp_path / "run")
    (line,) = (home() / "looks.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["variant"], entry["run"]) == ("a", str(tmp_path / "run"))
    assert entry["time"].endswith("+00:00")
    assert len(set(entry["items"])) == 10


def test_a_line_of_many_items_stays_short(of, tmp_path):
    look(of(slice(None)), "a", tmp_path)
    assert (home() / "looks.jsonl").stat().st_size < 8000


@pytest.mark.parametrize("spoilt", ['{"split": "split", "var', "[]\n", '{"variant": "z", "items": 3}\n'])
def test_a_line_that_a_kill_cut_off_spoils_neither_the_past_nor_the_future(of, tmp_path, spoilt):
    split = of(slice(0, 10))
    look(split, "a", tmp_path)
    path = home() / "looks.jsonl"
    path.write_text(path.read_text() + spoilt)
    assert look(split, "b", tmp_path) == 2
    assert look(split, "c", tmp_path) == 3


def test_a_home_that_can_not_be_written_is_one_clear_line(of, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(BadInput, match="can't create the folder"):
        look(of(slice(0, 10)), "a", tmp_path)
