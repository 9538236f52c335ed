from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trimtab.core.values import Reading
from trimtab.reports import html

NAME = "static-int8 on openvino"
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


class Page(HTMLParser):
    """Collects what a browser would run, fetch and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._inside != "style":
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def text(result):
    return html.render(result)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_report_fetches_nothing(text, page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "./"))
    assert re.search(r"url\((?!#)", text) is None
    assert "@import" not in text


def test_policy_lets_only_our_script_run(page):
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    running = [body for attributes, body in page.scripts if attributes.get("type") != "application/json"]
    digest = base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode()
    assert len(running) == 1
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_same_result_gives_the_same_page(result, text):
    assert html.render(result) == text


def test_verdict_is_the_headline(page, result):
    order = [tag for tag, _ in page.tags if tag in ("h1", "h2", "table")]
    assert order[0] == "h1"
    assert result.verdict in page.text


def test_both_baselines_are_shown_with_their_ratios(page):
    for said in ("as given", "best untouched", "2.90× faster", "2.82–2.99", "1.80× faster", "1.75–1.86"):
        assert said in page.text


def test_everything_tried_is_listed_with_its_reason_and_its_log(page, result):
    for trial in result.trials[2:]:
        assert trial.name in page.text
        assert trial.reason in page.text
        assert str(trial.log) in page.text


def test_certificate_is_told_in_full(page, result):
    for said in (result.certificate.command, "Tango's score test", "1,200 items", "9 answers changed", "once"):
        assert said in page.text


def test_machine_time_spent_and_self_test_are_shown(page):
    for said in (
        "Example CPU 9",
        "avx512_vnni",
        "onnxruntime 1.31.0",
        "1.42",
        "equivalent",
        "32 s · 32 %",
        "1.12 times",
    ):
        assert said in page.text
    assert "60 s · 60 %" in page.text  # what went into the winner is a part of the search, not added to it


def test_harmed_class_is_named_and_an_unproven_one_is_not(page):
    assert "1 class is measurably worse" in page.text
    assert [tag for tag in page.text.split() if tag == "worse"].count("worse") >= 1
    assert "not beyond chance (p = 0.6)" in page.text


def test_unavailable_percentile_is_never_a_number(page):
    assert "n too small 400 samples, 662 needed" in page.text


def test_a_proven_result_has_no_warning(page):
    assert not any(attributes.get("role") == "alert" for _, attributes in page.tags)


def test_speed_only_is_said_loudly_before_everything_else(speed_only):
    page = Page(html.render(speed_only))
    tags = [(tag, attributes.get("role")) for tag, attributes in page.tags]
    assert tags.index(("aside", "alert")) < tags.index(("h1", None))
    assert "Speed only, nothing proven" in page.text
    assert "There is none: nothing was proven" in page.text


def test_unmet_goal_still_shows_the_front(unmet):
    page = Page(html.render(unmet))
    assert "Goal not met" in page.text
    assert any(attributes.get("id") == "points" for attributes, _ in page.scripts)


def points(text):
    return json.loads(next(body for attributes, body in Page(text).scripts if attributes.get("id") == "points"))


def test_scatter_holds_every_variant_with_its_interval(text):
    data = points(text)
    by_name = {point["name"]: point for point in data["points"]}
    assert (data["x"], data["y"]) == ("relative_time", "accuracy_change")
    assert by_name[NAME]["values"]["relative_time"] == pytest.approx([1 / 2.9, 0.97 / 2.9, 1.03 / 2.9])
    assert by_name[NAME]["texts"]["accuracy_change"] == "−0.08 pt (−0.42 to +0.21 at 90 %)"
    assert data["limit"] == {"axis": "accuracy_change", "value": -0.01}
    assert "latency_p99" not in by_name["as given"]["values"]


def test_scatter_is_a_picture_without_scripts(page):
    hidden = {attributes["id"] for _, attributes in page.tags if "hidden" in attributes and "id" in attributes}
    assert hidden == {"theme", "axes", "live"}
    assert any(attributes.get("id") == "static" for _, attributes in page.tags)


def test_infinite_numbers_are_null_in_the_data(result):
    def with_error(measurement, value):
        error = Reading(name="mse", value=value, direction="lower")
        return replace(measurement, readings=(*measurement.readings, error))

    first, second, *others = result.comparison.measurements
    measurements = (with_error(first, float("inf")), with_error(second, 1.0), *others)
    comparison = replace(result.comparison, measurements=measurements)
    data = points(html.render(replace(result, comparison=comparison)))
    assert next(p for p in data["points"] if p["name"] == "as given")["values"]["mse"] == [None, None, None]


def test_text_of_others_can_not_become_code(result):
    trials = (*result.trials, replace(result.trials[-1], name=EVIL, reason=EVIL, log=Path(f"x/{EVIL}")))
    seen = replace(result.trials[3], name=f"{EVIL}2")
    task = replace(result.task, classes=(EVIL, *result.task.classes[1:]))
    evil = replace(
        result, verdict=EVIL, command=EVIL, warnings=(EVIL,), trials=(*trials[:3], seen, *trials[4:]), task=task
    )
    page = Page(html.render(evil))
    assert len(page.scripts) == 2
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "alert(1)" in page.text


def test_theme_has_both_the_systems_choice_and_the_readers(text):
    assert "prefers-color-scheme: dark" in text
    assert ':root[data-theme="dark"]' in text
    assert "@DARK@" not in text


def test_written_report_links_the_logs_beside_it(result, tmp_path):
    log = tmp_path / "work" / "logs" / "a b.log"
    trials = (*result.trials[:-1], replace(result.trials[-1], log=log))
    path = html.write(replace(result, trials=trials), tmp_path / "report.html")
    assert 'href="./work/logs/a%20b.log"' in path.read_text()
    assert str(tmp_path) not in path.read_text()


def test_every_row_of_a_table_has_the_cells_of_its_head(page):
    tables, row = [], None
    for tag, _ in page.tags:
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            row = []
            tables[-1].append(row)
        elif tag in ("td", "th"):
            row.append(tag)
    assert len(tables) == 4, "baselines, classes, readings, everything tried"
    for table in tables:
        assert len(table) > 1
        assert {len(row) for row in table} == {len(table[0])}


def test_names_of_elements_are_given_once(page):
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_sections_are_headed_in_the_order_a_reader_asks(page):
    order = [
        "Against both baselines",
        "What each variant gives",
        "Everything that was tried",
        "Certificate",
        "How it was",
    ]
    places = [page.text.index(title) for title in order]
    assert places == sorted(places)


def test_figures_are_told_to_those_who_do_not_see_them(page):
    figures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(figures) == 6
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in figures)


def themes(text):
    """The colours of the page by the name of their variable, for light and for dark."""
    light, _, rest = text.partition("<style>")[2].partition("@media (prefers-color-scheme: dark)")
    parts = {"light": light, "dark": rest.partition(":root[data-theme")[0]}
    return {name: dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", part)) for name, part in parts.items()}


def test_every_colour_of_the_page_is_set_for_light_and_for_dark(text):
    found = themes(text)
    used = set(re.findall(r"var\((--[\w-]+)\)", text)) - {"--sans", "--mono"}
    assert used <= set(found["light"]) == set(found["dark"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_its_background(text, theme):
    """WCAG 2.1 asks for a contrast of 4.5 between text and background."""
    colours = themes(text)[theme]
    pairs = [(f"--{kind}-ink", f"--{kind}-back") for kind in ("good", "warn", "bad")]
    pairs += [(ink, back) for ink in ("--ink", "--muted", "--link") for back in ("--page", "--paper")]
    for ink, back in pairs:
        assert contrast(colours[ink], colours[back]) >= 4.5, (ink, back)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_name_from_any_alphabet_is_shown_whole(result):
    variant = result.as_given.variant
    named = replace(variant, model=replace(variant.model, path=Path("/models/réseau 网络 $x$ <b>.onnx")))
    page = Page(html.render(replace(result, as_given=replace(result.as_given, variant=named))))
    assert page.text.count("réseau 网络 $x$ <b>.onnx") == 2, "the title and the head of the page"


def test_what_failed_is_told_beside_the_verdict_and_in_full_in_the_table(result):
    reason = f"no kernel for {'x' * 90}"
    trials = (*result.trials[:-1], replace(result.trials[-1], reason=reason))
    text = Page(html.render(replace(result, trials=trials))).text
    assert "Failed: simplify (no kernel for xxx" in text.partition("Against both baselines")[0]
    assert reason in text


def test_where_both_baselines_are_one_the_reader_is_told(result, page):
    assert "Here the two are the same." not in page.text
    assert "Here the two are the same." in Page(html.render(replace(result, untouched=result.as_given))).text


def test_the_looks_at_the_certify_items_are_told_where_nothing_was_proven(result):
    unproven = replace(result, certificate=None, winner=None, looks=4)
    assert (
        "The certify items have been tested on 4 times, earlier runs included: every look weakens"
        in Page(html.render(unproven)).text
    )
    assert "tested on" not in Page(html.render(replace(unproven, looks=0))).text


def test_the_level_of_a_change_in_quality_is_that_of_the_goal(result, page):
    assert "those of a change in quality 90 % intervals" in page.text
    strict = replace(result, goal=replace(result.goal, error=0.01))
    assert "those of a change in quality 98 % intervals" in Page(html.render(strict)).text
