from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from trimtab.cli import options as o
from trimtab.cli.app import app
from trimtab.core.errors import BadInput
from trimtab.core.values import Workload

GROUPS = {o.DataOptions, o.ModelOptions, o.WorkloadOptions}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two options that belong together."""

    left: Annotated[int, typer.Option("--left", help="The left one.")] = 1
    right: Annotated[list[str] | None, typer.Option("--right")] = None


class TestSpread:
    """A group of options is taken one by one and given as one."""

    @pytest.fixture
    def command(self):
        small, called = typer.Typer(), []

        @small.command()
        @o.spread
        def add(name: Annotated[str, typer.Argument()], *, pair: Pair, loud: Annotated[bool, typer.Option()] = False):
            """Add them."""
            called.append((name, pair, loud))

        return small, called

    def test_the_command_gets_the_group_it_asks_for(self, command):
        small, called = command
        done = CliRunner().invoke(small, ["x", "--left", "5", "--right", "a", "--right", "b", "--loud"])
        assert done.exit_code == 0, done.output
        assert called == [("x", Pair(left=5, right=["a", "b"]), True)]

    def test_what_is_not_given_is_the_groups_default(self, command):
        small, called = command
        assert CliRunner().invoke(small, ["x"]).exit_code == 0
        assert called == [("x", Pair(), False)]

    def test_help_lists_the_options_and_not_the_group(self, command):
        text = CliRunner().invoke(command[0], ["--help"]).output
        assert "Add them." in text
        assert "--left" in text
        assert "The left one." in text
        assert "--pair" not in text

    def test_an_option_of_the_wrong_type_is_refused(self, command):
        small, called = command
        assert CliRunner().invoke(small, ["x", "--left", "many"]).exit_code == 2
        assert called == []


def test_every_option_of_a_group_has_a_default_and_is_spelled():
    for group in GROUPS:
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            (option,) = hints[field.name].__metadata__
            assert option.default.startswith("--"), "where typer keeps the name of an annotated option"
            assert option.help.endswith(".")
            assert group() == group(**{field.name: field.default})


class TestPanels:
    """How `--help` groups the options."""

    def test_every_option_that_commands_share_stands_in_a_panel(self):
        for group in GROUPS:
            for hint in get_type_hints(group, include_extras=True).values():
                (option,) = hint.__metadata__
                assert option.rich_help_panel in ("Data", "Goal", "Model"), option.default

    def test_no_panel_holds_more_than_a_person_looks_through(self):
        for command in typer.main.get_command(app).commands.values():
            panels = Counter(option.rich_help_panel for option in command.params)
            assert max(panels.values()) <= 9, (command.name, panels)
            assert len(panels) <= 5, (command.name, panels)

    def test_help_shows_an_option_below_the_head_of_its_panel(self):
        done = CliRunner().invoke(app, ["optimize", "--help"], env={"COLUMNS": "100"})
        text = re.sub(r"\x1b\[[\d;]*m", "", done.output)  # some environments force colours
        panels = re.split(r"╭─ (\w+) ─+╮", text)
        found = dict(zip(panels[1::2], panels[2::2], strict=True))
        assert list(found) == ["Arguments", "Options", "Data", "Goal", "Model", "Search"]
        wanted = {
            "Options": "--dry-run",
            "Data": "--groups",
            "Goal": "--max-drop",
            "Model": "--input",
            "Search": "--only",
        }
        assert all(option in found[panel] for panel, option in wanted.items())
        assert "x:float32[1,1,28,28]" in found["Model"], "brackets are no markup"


def test_no_option_is_spelled_twice_on_one_command():
    for command in typer.main.get_command(app).commands.values():
        spelled = [option for parameter in command.params for option in parameter.opts]
        assert len(spelled) == len(set(spelled)), command.name


class TestData:
    """How data is read and judged, from words to a value."""

    def test_everything_that_was_typed_arrives(self):
        typed = o.DataOptions(
            preprocess="imagenet", labels=Path("classes.txt"), output_name="scores", groups="speaker", metric="recall",
            cost="miss=10, false-alarm=1", kind="binary", positive="spam", threshold=0.3, seed=7,
        )  # fmt: skip
        request = typed.request()
        assert (request.preprocess, request.labels, request.output) == ("imagenet", Path("classes.txt"), "scores")
        assert (request.groups, request.metric, request.kind) == ("speaker", "recall", "binary")
        assert (request.positive, request.threshold, request.costs, request.seed) == ("spam", 0.3, (10.0, 1.0), 7)

    def test_what_was_not_typed_is_found_out(self):
        request = o.DataOptions().request()
        kept = {field.name: getattr(request, field.name) for field in fields(request)}
        assert {name for name, value in kept.items() if value is not None} == {"max_drop", "error", "seed"}

    def test_an_unknown_kind_is_told_with_the_known_ones(self):
        with pytest.raises(BadInput, match=r"--kind 'poem' is none of classification, binary, regression, embedding"):
            o.DataOptions(kind="poem").request()

    @pytest.mark.parametrize(
        ("options", "typed", "drop"),
        [
            ({}, "1pt", 0.01),
            ({"metric": "recall"}, "2%", 0.02),
            ({"metric": "mse"}, "3", 3.0),
            ({"cost": "miss=9, false-alarm=1"}, "2.5", 2.5),
            ({"cost": "miss=9, false-alarm=1", "metric": "recall"}, "2pt", 0.02),
        ],
    )
    def test_a_drop_is_in_the_unit_of_what_is_protected(self, options, typed, drop):
        assert o.DataOptions(**options).drop(typed) == drop

    def test_money_has_no_points(self):
        with pytest.raises(BadInput, match="'1pt' is not a drop of cost"):
            o.DataOptions(cost="miss=9, false-alarm=1").drop("1pt")


class TestModel:
    """How a model is opened, from words to a value."""

    def test_everything_that_was_typed_arrives(self):
        typed = o.ModelOptions(
            weights=Path("w.safetensors"), trust_pickle=True, state=["h=h_out", "c=c_out"], input=["x:float32[1,3]"]
        )
        request = typed.request()
        assert (request.weights, request.trust_pickle) == (Path("w.safetensors"), True)
        assert request.states == (("h", "h_out"), ("c", "c_out"))
        assert request.example == (("x", (1, 3), "float32"),)

    def test_nothing_is_trusted_unless_it_is_said(self):
        assert o.ModelOptions().request().trust_pickle is False


class TestWorkload:
    """How a model is called, from words to a value."""

    def test_lengths_belong_to_their_dimensions(self):
        typed = o.WorkloadOptions(batch=4, length=["sequence=128", "x:2=64"])
        assert typed.workload() == Workload(batch=4, lengths=(("sequence", 128), ("x:2", 64)))

    @pytest.mark.parametrize(
        "length", ["sequence", "sequence=", "=128", "sequence=long", "sequence=-1", "a=0", "a=²", "a=1.5"]
    )
    def test_a_length_that_is_no_size_says_how_to_type_it(self, length):
        with pytest.raises(BadInput, match=r"--length '.*' is not understood; type it like \"sequence=128\""):
            o.WorkloadOptions(length=[length]).workload()
