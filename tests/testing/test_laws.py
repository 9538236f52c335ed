from __future__ import annotations

import importlib
import sys
from typing import Any
from unittest import SkipTest

import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput, MissingExtra, Refused, WorkerCrashed
from trimtab.core.protocols import Store, Tracker
from trimtab.stores.folder import FolderStore
from trimtab.testing import StoreSuite, laws, suites

WORDS = "the model has no such input"


class TestKind:
    def test_one_that_has_all_is_let_through(self):
        laws.check_kind(FolderStore, Store)

    @pytest.mark.parametrize("name", ["Folder", "my store", "my_store", "-folder", "folder-", "", "größe"])
    def test_a_name_that_nobody_types_is_told(self, name):
        with pytest.raises(AssertionError, match="lower-case words joined by dashes"):
            laws.check_kind(type("Made", (FolderStore,), {"name": name}), Store)

    def test_a_name_that_is_missing_is_told(self):
        with pytest.raises(AssertionError, match="Nameless has no attribute `name`"):
            laws.check_kind(type("Nameless", (), {}), Store)

    def test_a_missing_method_is_told_with_the_seam(self):
        with pytest.raises(AssertionError, match="folder has not all that a Tracker has"):
            laws.check_kind(FolderStore, Tracker)

    def test_an_option_without_a_default_is_told(self):
        class Needs(FolderStore):
            def __init__(self, place: str) -> None:
                super().__init__(place)

        with pytest.raises(AssertionError, match="the option place of folder has no default"):
            laws.check_kind(Needs, Store)


class TestSentence:
    @pytest.mark.parametrize("text", [WORDS, f"{WORDS}\n"])
    def test_words_on_one_line_are_let_through(self, text):
        laws.check_sentence(text, about="input")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, "is not a text"),
            ("", "not a reason in words"),
            ("no way", "not a reason in words"),
            (f"{WORDS}\n{WORDS}", "more than one line"),
            ("something else is wrong", "does not mention 'input'"),
        ],
    )
    def test_anything_else_is_told_why(self, text, words):
        with pytest.raises(AssertionError, match=words):
            laws.check_sentence(text, about="input")

    def test_a_refusal_is_an_error_of_ours_in_words(self):
        def raises(error: Exception) -> Any:
            def call() -> None:
                raise error

            return call

        laws.check_refusal(raises(Refused(WORDS)), "it")
        with pytest.raises(AssertionError, match="it was not refused"):
            laws.check_refusal(lambda: None, "it")
        with pytest.raises(AssertionError, match="not a reason in words"):
            laws.check_refusal(raises(BadInput("no")), "it")
        with pytest.raises(ZeroDivisionError):
            laws.check_refusal(lambda: 1 / 0, "it")


class TestContents:
    def test_every_file_below_is_told_and_nothing_else(self, tmp_path):
        (tmp_path / "deep" / "empty").mkdir(parents=True)
        (tmp_path / "deep" / "ü.txt").write_text("one")
        (tmp_path / "a").write_text("one")
        found = laws.contents(tmp_path)
        assert sorted(map(str, found)) == ["a", "deep/ü.txt"]
        assert len(set(found.values())) == 1, "equal files have equal digests"

    def test_a_changed_a_new_and_a_lost_file_show(self, tmp_path):
        (tmp_path / "a").write_text("one")
        before = laws.contents(tmp_path)
        (tmp_path / "a").write_text("two")
        assert laws.contents(tmp_path) != before
        (tmp_path / "a").write_text("one")
        assert laws.contents(tmp_path) == before
        (tmp_path / "b").write_text("")
        assert laws.contents(tmp_path) != before

    def test_what_lies_below_the_folder_left_out_does_not_show(self, tmp_path):
        before = laws.contents(tmp_path)
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "a").write_text("one")
        (tmp_path / "made-too").write_text("two")
        assert set(map(str, laws.contents(tmp_path, without=tmp_path / "made"))) == {"made-too"}
        assert before == {}


class TestMissingPackages:
    def test_a_call_that_lacks_a_package_skips_with_the_command_that_installs_it(self):
        def call() -> None:
            raise MissingExtra("nncf", "openvino", "int8")

        with pytest.raises(SkipTest, match=r"pip install 'trimtab\[openvino\]'"):
            laws.unless_missing(call)
        assert laws.unless_missing(lambda: 7) == 7

    def test_named_packages_and_what_is_below_them_can_not_be_found(self, monkeypatch):
        monkeypatch.setattr(sys, "meta_path", [laws.Missing(("colorsys", "xml")), *sys.meta_path])
        for name in ("colorsys", "xml.dom.minidom"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delitem(sys.modules, "xml", raising=False)
        for name in ("colorsys", "xml.dom.minidom"):
            with pytest.raises(ModuleNotFoundError, match="No module named"):
                importlib.import_module(name)
        assert importlib.import_module("xmlrpc") is not None, "a name that begins alike is another package"


class TestElsewhere:
    def test_tells_the_frameworks_that_a_method_imported_there_not_here(self, module):
        text = (
            "class Heavy:\n def light(self):\n  return 1\n def heavy(self, number):\n"
            "  import onnxruntime\n  assert number == 3\n"
        )
        plugin = module(text).Heavy
        assert laws.elsewhere(plugin, ("light", ())) == []
        assert laws.elsewhere(plugin, ("light", ()), ("heavy", (3,))) == ["onnxruntime"]

    def test_a_package_can_be_taken_away_there(self, module):
        plugin = module("class Needs:\n def load(self):\n  import colorsys\n").Needs
        assert laws.elsewhere(plugin, ("load", ())) == []
        with pytest.raises(WorkerCrashed, match="No module named 'colorsys'"):
            laws.elsewhere(plugin, ("load", ()), without=("colorsys",))

    def test_a_plug_in_that_only_this_process_can_import_skips(self):
        made = type("Made", (), {"__module__": "a_module_of_this_process_only"})
        with pytest.raises(SkipTest, match="put the plug-in into a module of its own"):
            laws.elsewhere(made, ("anything", ()))


class TestSuites:
    def test_there_is_one_class_for_every_plug_in_of_the_group(self):
        found = suites("techniques", StoreSuite)
        assert len(found) == len(plugins.names("techniques"))
        assert found["TestStaticInt8"].plugin is plugins.plugin_class("techniques", "static-int8")
        assert all(issubclass(suite, StoreSuite) for suite in found.values())

    def test_only_what_an_entry_point_names_is_installed(self):
        assert laws.installed("stores", FolderStore)
        assert not laws.installed("stores", type("Other", (FolderStore,), {}))
        assert not laws.installed("stores", type("Other", (FolderStore,), {"name": "other"}))
