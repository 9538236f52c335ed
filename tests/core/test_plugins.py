from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Annotated

import pytest

from trimtab.core import plugins
from trimtab.core.errors import BadInput
from trimtab.core.protocols import Choices
from trimtab.core.values import Step, options


class Prune:
    """A technique with two dimensions of search, one plain option, and one annotated otherwise."""

    name = "prune"

    def __init__(
        self,
        share: Annotated[float, Choices(0.25, 0.5)] = 0.5,
        method: Annotated[str, Choices("l1", "taylor")] = "l1",
        rounds: int = 1,
        note: Annotated[str, "anything"] = "",
    ) -> None:
        self.given = (share, method, rounds, note)


class Plain:
    name = "plain"


class Deciding:
    """A technique that decides by itself what is left at None."""

    name = "deciding"

    def __init__(
        self, limit: bool | None = None, fast: Annotated[bool | None, Choices(True, False)] = None, bits: int | None = 8
    ) -> None:
        self.given = (limit, fast, bits)


@pytest.fixture(autouse=True)
def fake_entry_points(monkeypatch):
    """Two techniques of a distribution of its own, and one whose file is gone."""
    known = {
        "prune": EntryPoint("prune", f"{__name__}:Prune", "trimtab.techniques"),
        "plain": EntryPoint("plain", f"{__name__}:Plain", "trimtab.techniques"),
    }
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    monkeypatch.setattr(plugins, "_found", lambda group: known if group == "techniques" else {})
    plugins.plugin_class.cache_clear()
    yield
    plugins.plugin_class.cache_clear()


def _this_module():
    import types

    module = types.ModuleType(__name__)
    module.Prune, module.Plain, module.Deciding = Prune, Plain, Deciding
    return module


def test_names_are_sorted_and_unknown_groups_are_empty():
    assert plugins.names("techniques") == ("plain", "prune")
    assert plugins.names("meters") == ()


def test_makes_with_defaults_or_with_options():
    assert plugins.make("techniques", "prune").given == (0.5, "l1", 1, "")
    assert plugins.make("techniques", "prune", options(share=0.25, rounds=3)).given == (0.25, "l1", 3, "")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(BadInput, match=r"there is no technique named 'cut'; known are: plain, prune"):
        plugins.make("techniques", "cut")


def test_an_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(BadInput, match=r"prune has no option 'size'; its options are: share, method, rounds, note"):
        plugins.make("techniques", "prune", options(size=1))
    with pytest.raises(BadInput, match=r"plain has no option 'size'; its options are: none"):
        plugins.make("techniques", "plain", options(size=1))


def test_every_one_is_made():
    assert [type(made) for made in plugins.every("techniques")] == [Plain, Prune]


def test_marked_options_are_dimensions_of_the_search():
    assert plugins.choices("techniques", "prune") == {"share": (0.25, 0.5), "method": ("l1", "taylor")}
    assert plugins.choices("techniques", "plain") == {}


def test_defaults_are_those_of_the_signature():
    assert plugins.defaults("techniques", "prune") == {"share": 0.5, "method": "l1", "rounds": 1, "note": ""}
    assert plugins.defaults("techniques", "plain") == {}


def test_what_is_made_anew_shares_nothing_with_what_was_made_before():
    one, other = (plugins.make("techniques", "prune") for _ in range(2))
    assert one is not other
    assert type(one) is plugins.plugin_class("techniques", "prune")


def test_a_plug_in_that_cannot_be_imported_is_named_with_the_reason(monkeypatch):
    for value, reason in (("no_such_module:Prune", "No module named"), ("trimtab.core.words:Prune", "no attribute")):
        gone = EntryPoint("gone", value, "trimtab.techniques")
        monkeypatch.setattr(plugins, "_found", lambda group, gone=gone: {"gone": gone})
        with pytest.raises(BadInput, match=rf"the technique 'gone' can't be imported \(.*{reason}.*uninstall {value}"):
            plugins.every("techniques")


def test_two_plug_ins_of_one_name_are_refused_instead_of_one_hiding_the_other(monkeypatch):
    monkeypatch.undo()
    points = [EntryPoint("prune", f"{module}:Prune", "trimtab.techniques") for module in ("ours", "theirs")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [points[0], *points])
    plugins._found.cache_clear()
    try:
        with pytest.raises(BadInput, match="two techniques are named 'prune', of ours:Prune and theirs:Prune"):
            plugins.names("techniques")
    finally:
        plugins._found.cache_clear()


def test_naming_plug_ins_imports_none_of_them():
    code = (
        "import sys; from trimtab.core import plugins;"
        "assert 'onnx' in plugins.names('formats') and 'quality' in plugins.names('meters');"
        "print([name for name in sys.modules if name.startswith('trimtab.') and not name.startswith('trimtab.core')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (options(share=0.5, method="l1", rounds=1, note=""), {}),
        (options(share=0.25, rounds=1), {"share": 0.25}),
        (options(share=0.5, rounds=2, note="x"), {"rounds": 2, "note": "x"}),
        (options(since_gone=1), {"since_gone": 1}),
    ],
    ids=["defaults", "one differs", "two differ", "an option it no longer has"],
)
def test_options_at_their_defaults_tell_a_reader_nothing(given, told):
    assert dict(plugins.telling("prune", given)) == told
    assert dict(plugins.telling("no-such-technique", given)) == dict(given), "its defaults are not known here"


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (options(limit=None, fast=None, bits=8), "deciding"),
        (options(limit=False), "deciding"),
        (options(limit=True), "deciding(limit=True)"),
        (options(fast=False), "deciding(fast=False)"),
        (options(bits=None), "deciding(bits=None)"),
    ],
    ids=["nothing", "decided to be off", "decided to be on", "off, but a search varies it", "None is no default"],
)
def test_a_label_tells_what_was_chosen_and_not_what_was_left_off(monkeypatch, given, label):
    point = EntryPoint("deciding", f"{__name__}:Deciding", "trimtab.techniques")
    monkeypatch.setattr(plugins, "_found", lambda group: {"deciding": point})
    assert Step(technique="deciding", options=given).label() == label


def test_many_names_are_counted_in_a_label():
    assert Step(technique="prune", options=options(note="conv1|conv2|fc")).label() == "prune(note=3 names)"
    assert Step(technique="prune", options=options(note="conv1")).label() == "prune(note=conv1)"


def test_a_label_never_changes_what_a_step_is():
    chosen = Step(technique="prune", options=options(share=0.5))
    plain = Step(technique="prune")
    assert chosen.label() == plain.label()
    assert repr(chosen) != repr(plain), "keys of measurements and folders are made of this"


class TestTyped:
    """Options as a person types them, with the types of the class's own signature."""

    def test_options_have_the_types_of_the_signature(self, monkeypatch):
        given = ["share=0.25", "rounds=3", "method=taylor", "note=3"]
        found = plugins.typed_options("techniques", "prune", given)
        assert found == {"share": 0.25, "rounds": 3, "method": "taylor", "note": "3"}
        assert plugins.make("techniques", "prune", options(found)).given == (0.25, "taylor", 3, "3")
        with monkeypatch.context() as patch:
            patch.setattr(plugins, "plugin_class", lambda group, name: Deciding)
            found = plugins.typed_options("techniques", "deciding", ["limit=none", "fast=FALSE", "bits=4"])
        assert found == {"limit": None, "fast": False, "bits": 4}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("rounds=many", "prune's option rounds takes a whole number, not 'many'"),
            ("share=half", "prune's option share takes a number, not 'half'"),
            ("colour=red", "prune has no option 'colour=red'; its options are: share, method, rounds, note"),
            ("rounds", "prune has no option 'rounds'"),
        ],
    )
    def test_an_option_that_does_not_fit_is_named(self, text, words):
        with pytest.raises(BadInput, match=words):
            plugins.typed_options("techniques", "prune", [text])

    def test_what_has_no_options_says_so(self):
        with pytest.raises(BadInput, match="plain has no option 'a=1'; its options are: none"):
            plugins.typed_options("techniques", "plain", ["a=1"])

    def test_a_plug_in_is_typed_with_its_options_behind_a_colon(self):
        assert plugins.typed("techniques", "prune") == ("prune", {})
        assert plugins.typed("techniques", "prune:share=0.25,note=a:b") == ("prune", {"share": 0.25, "note": "a:b"})
        with pytest.raises(BadInput, match="there is no technique named 'cut'"):
            plugins.typed("techniques", "cut:share=1")

    def test_options_of_several_say_whose_they_are(self):
        found = plugins.named_options("techniques", ["prune.share=0.25", "prune.rounds=2"])
        assert found == {"prune": {"share": 0.25, "rounds": 2}}
        assert plugins.named_options("techniques", []) == {}
        for text in ("share=0.25", "rounds"):
            with pytest.raises(BadInput, match=f"'{text}' does not say whose option it is; type it like"):
                plugins.named_options("techniques", [text])
