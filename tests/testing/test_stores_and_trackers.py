from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimtab.core.values import Measurement
from trimtab.stores.folder import FolderStore
from trimtab.testing import StoreSuite, TrackerSuite
from trimtab.tracking.folder import FolderTracker


class Forgets(FolderStore):
    def put(self, key: str, measurement: Measurement) -> None:
        pass


class MixesKeys(FolderStore):
    def _path(self, key: str) -> Path:
        return self._folder / "all.json"


class KeepsTheFirst(FolderStore):
    def put(self, key: str, measurement: Measurement) -> None:
        if self.get(key) is None:
            super().put(key, measurement)


class InMemory:
    name = "in-memory"

    def __init__(self, folder: str = "") -> None:
        self._kept: dict[str, Measurement] = {}

    def get(self, key: str) -> Measurement | None:
        return self._kept.get(key)

    def put(self, key: str, measurement: Measurement) -> None:
        self._kept[key] = measurement


class Silent(FolderTracker):
    def log(self, *given: Any, **more: Any) -> None:
        self._folder()


class LogsToNobody(FolderTracker):
    def _folder(self) -> Path:
        return self._run or self._root


class NeverEnds(FolderTracker):
    def end(self, *given: Any) -> None:
        run = self._run
        super().end(*given)
        self._run = run


class TakesAnyName(FolderTracker):
    def start(self, run: str, configuration: Any) -> None:
        self._run = self._root / run
        self._run.mkdir(parents=True, exist_ok=True)


BROKEN = [
    (StoreSuite, Forgets, "test_what_is_got_equals_what_was_put", "None is got"),
    (StoreSuite, MixesKeys, "test_nothing_is_kept_under_an_unknown_key", "under another"),
    (StoreSuite, MixesKeys, "test_keys_do_not_mix_and_the_last_one_put_counts", "put last"),
    (StoreSuite, KeepsTheFirst, "test_keys_do_not_mix_and_the_last_one_put_counts", "put last"),
    (StoreSuite, InMemory, "test_is_still_there_for_the_next_process", "is gone"),
    (TrackerSuite, Silent, "test_what_is_logged_can_be_found", "accuracy was not logged"),
    (TrackerSuite, LogsToNobody, "test_logging_and_ending_without_a_run_are_refused_in_words", "was not refused"),
    (TrackerSuite, NeverEnds, "test_logging_and_ending_without_a_run_are_refused_in_words", "was not refused"),
    (TrackerSuite, TakesAnyName, "test_a_run_whose_name_leaves_the_folder_is_refused", "was not refused"),
]


@pytest.mark.parametrize(("suite", "plugin", "law", "words"), BROKEN)
def test_the_law_that_is_broken_says_so(suite: Any, plugin: type[Any], law: str, words: str, broken: Any) -> None:
    assert words in broken(suite, plugin, law)


def test_a_store_that_writes_in_place_is_caught_half_way(broken: Any, module: Any) -> None:
    text = (
        "import time\nfrom trimtab.stores.folder import FolderStore\n\nclass InPlace(FolderStore):\n"
        " def put(self, key, measurement):\n  path = self._path(key)\n  again = path.exists()\n"
        "  path.parent.mkdir(parents=True, exist_ok=True)\n  path.write_text('')\n"
        "  time.sleep(5.0 if again else 0.0)\n  super().put(key, measurement)\n"
    )
    law = "test_a_process_killed_while_it_puts_leaves_the_old_one_or_the_new"
    assert "half of a measurement" in broken(StoreSuite, module(text).InPlace, law)
