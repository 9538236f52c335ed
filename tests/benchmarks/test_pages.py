"""The parts of the benchmarks that only count, format and remember."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from trimtab.core.codec import to_plain
from trimtab.core.machine import machine
from trimtab.core.values import Goal, Model, NoWorse, Ratio, Settings, Signature, Task, Variant


def ratio(value, low, high, verdict="equivalent"):
    return Ratio(
        reading="latency", variant="a", baseline="b", value=value, low=low, high=high, level=0.95, margin=0.03,
        verdict=verdict, blocks=100, processes=5,
    )  # fmt: skip


def quality(difference=0.0, proven=True):
    return NoWorse(
        metric="accuracy", variant="a", baseline="b", max_drop=0.01, error=0.05, method="Tango's score test",
        items=1000, groups=1000, difference=difference, low=difference - 0.005, high=difference + 0.005, better=0,
        worse=0, flips=0, proven=proven, reason="" if proven else "loses 3.0 pt of accuracy",
    )  # fmt: skip


def standing(name, over_ours=None, difference=0.0, proven=True, label="onnxruntime"):
    from against_peers import Standing
    from contest import Entry

    model = Model(format="onnx", path="m.onnx", digest=name, signature=Signature(inputs=(), outputs=()))
    variant = Variant(model=model, settings=Settings(runtime=label))
    proof = quality(difference, proven)
    entry = Entry(name=name, command=f"python {name}.py", variant=variant, quality=proof, reason=proof.reason)
    if over_ours is None:
        return Standing(entry=entry, latency_s=0.001)
    low, high = over_ours * 0.99, over_ours * 1.01
    return Standing(
        entry=entry, over_ours=ratio(over_ours, low, high), ours_over=ratio(1 / over_ours, 1 / high, 1 / low),
        latency_s=0.001 * over_ours,
    )  # fmt: skip


def test_what_is_finished_is_not_made_again(tmp_path):
    from pages import Journal

    made = []
    for _ in range(3):
        journal = Journal(tmp_path / "journal.jsonl")
        row = journal.once("a", lambda: made.append(1) or {"value": 7})
    assert row == {"key": "a", "value": 7}
    assert len(made) == 1


def test_a_line_that_a_kill_cut_off_is_done_again_and_spoils_nothing(tmp_path):
    from pages import Journal

    path = tmp_path / "journal.jsonl"
    path.write_text('{"key": "a", "value": 1}\n{"key": "b", "val')
    journal = Journal(path)
    assert set(journal.rows) == {"a"}
    journal.once("b", lambda: {"value": 2})
    assert {key: row["value"] for key, row in Journal(path).rows.items()} == {"a": 1, "b": 2}


def test_a_table_has_a_head_a_rule_and_its_rows():
    from pages import table

    assert table(("name", "ms"), [["a|b", 1.5], ["c", ""]], right=(1,)) == [
        "| name | ms |", "| --- | ---: |", "| a\\|b | 1.5 |", "| c |  |",
    ]  # fmt: skip


def test_a_row_of_another_length_is_refused():
    from pages import table

    with pytest.raises(ValueError, match="2 cells"):
        table(("name", "ms"), [["a"]])


def test_a_speed_up_is_the_ratio_of_times_turned_over():
    from pages import faster

    assert faster(ratio(0.5, 0.4, 0.8)) == "2.00× (1.25 to 2.50)"


def test_a_result_is_written_for_people_and_for_programs(tmp_path, capsys):
    from pages import publish

    publish("thing", "A thing", ["Text."], {"found": {"ratio": ratio(1.0, 0.9, 1.1)}}, tmp_path)
    page, held = (tmp_path / "thing.md").read_text(), json.loads((tmp_path / "thing.json").read_text())
    assert page.startswith("# A thing\n\nText.\n\nMachine: ")
    assert held["found"]["ratio"]["high"] == 1.1
    assert held["machine"]["cores"] >= 1
    assert page in capsys.readouterr().out


def test_paths_are_told_from_the_root_of_the_repository():
    from pages import HERE, from_root

    assert from_root(f"trimtab optimize {HERE}/work/model.onnx") == "trimtab optimize benchmarks/work/model.onnx"


def test_the_fastest_peer_that_fails_does_not_count():
    from against_peers import fastest_passing

    found = [standing("ours"), standing("fast", 0.5, proven=False), standing("good", 1.2), standing("slow", 2.0)]
    assert fastest_passing(found).entry.name == "good"
    assert fastest_passing(found[:2]) is None


def test_the_figure_is_met_by_the_upper_bound_not_by_the_estimate():
    from against_peers import verdicts

    found = [standing("trimtab"), standing("peer", 0.975)]
    lines, held = verdicts(found, found[0].entry)
    assert held["ratio"].value < 1.03 < held["ratio"].high
    assert lines[0].startswith("- **NOT met**")


def test_the_reason_names_who_was_faster_but_failed():
    from against_peers import reason

    found = [standing("trimtab", label="openvino"), standing("fast", 0.8, -0.03, proven=False), standing("peer", 1.3)]
    told = reason(found, found[2], found[0].entry)
    assert "as given on openvino" in told
    assert "faster than that but failing: fast loses 3.0 pt of accuracy" in told


def test_who_fails_is_struck_through():
    from against_peers import row

    assert row(standing("fast", 0.5, -0.03, proven=False))[0] == "~~fast~~"
    assert row(standing("good", 1.1))[0] == "good"


def test_nncf_is_told_of_transformers_only_where_there_is_one(tmp_path):
    import contest
    from assets import Asset

    def scripts(name):
        asset = Asset(name=name, model=tmp_path / "m.onnx", data=tmp_path, calibration=tmp_path / "c.npz")
        return {peer.key: shown for peer in contest.peers(asset) if (shown := peer.command(asset, tmp_path))}

    assert "--transformer" in scripts("minilm")["nncf_int8-transformer"]
    assert "--transformer" not in scripts("mnist")["nncf_int8"]
    assert len(scripts("mnist")) == len(contest.PEERS)


def test_verdicts_under_load_are_counted():
    from under_load import summary

    rows = [
        {"kind": "same", "verdict": verdict, "value": 1.0, "seconds": 20.0, "noise": None}
        for verdict in ("equivalent", "faster", "inconclusive", "slower")
    ] + [
        {"kind": "larger", "verdict": verdict, "value": 1.1, "seconds": 25.0, "noise": 2.0}
        for verdict in ("slower", "slower", "faster")
    ]
    same, larger = summary(rows, "same"), summary(rows, "larger")
    assert (same["wrong"], same["equivalent"], same["widest_s"]) == (2, 1, 20.0)
    assert (larger["wrong"], larger["slower"], larger["noise"]) == (1, 2, 2.0)


def test_the_larger_network_has_a_tenth_more_work(tmp_path):
    import under_load
    from trimtab.core.protocols import Opening
    from trimtab.core.values import Workload
    from trimtab.formats.onnx import OnnxFormat

    def macs(layers):
        model = OnnxFormat().open(
            str(under_load.network(layers, tmp_path / f"{layers}.onnx")), Opening(folder=tmp_path)
        )
        return OnnxFormat().work(model, Workload()).macs

    assert macs(under_load.LARGER) / macs(under_load.LAYERS) == pytest.approx(1.1)


def killed_run(work):
    (work / "proofs").mkdir(parents=True)
    (work / "journal.jsonl").write_text('{"name": "a"}\n{"name": "b"}\n{"na')
    (work / "proofs" / "a.json").write_text("{}")
    return work


def test_what_was_finished_at_the_kill_is_not_called_repeated(tmp_path):
    from kill_and_resume import finished, journal_lines, repeated

    work = killed_run(tmp_path)
    lines, marks = journal_lines(work), finished(work)
    assert len(lines) == 2
    (work / "journal.jsonl").write_text('{"name": "a"}\n{"name": "b"}\n{"name": "c"}\n')
    assert repeated(lines, marks, work) == []


def test_work_done_again_is_found(tmp_path):
    from kill_and_resume import finished, journal_lines, repeated

    work = killed_run(tmp_path)
    lines, marks = journal_lines(work), finished(work)
    (work / "journal.jsonl").write_text('{"name": "a"}\n{"name": "b"}\n{"name": "a"}\n')
    (work / "proofs" / "again.json").write_text("{}")
    (work / "proofs" / "again.json").replace(work / "proofs" / "a.json")
    assert repeated(lines, marks, work) == ["trial a", "proofs/a.json"]


def test_mistakes_are_counted_as_a_hand_counts_them():
    from spam import counted
    from trimtab.core.values import Task

    task = Task(kind="binary", costs=(10.0, 1.0), threshold=0.3, logits=False)
    found = counted(task, np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.4, 0.1, 0.35, 0.2]))
    assert (found["misses"], found["false_alarms"]) == (1, 1)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["cost_per_1000"] == pytest.approx(1000 * 11 / 5)


def test_long_searches_are_told(tmp_path):
    from searches import body, held

    search = {"seconds": 95.0, "accounted_s": 90.0, "trials": 9, "winner": 0.1, "final": 0.4}
    page = {"search": search, "commands": ["trimtab optimize m --budget 55s"], "machine": to_plain(machine())}
    for name in ("peers-digits", "peers-mnist"):
        (tmp_path / f"{name}.json").write_text(json.dumps(page))
    lines = body(held(tmp_path))
    assert "- **NOT met**: peers-digits: 95 s with a budget of 55s (at most 90 s)" in lines
    assert "- **met**: peers-mnist: 95 s with a budget of 55s (at most 600 s)" in lines


def test_a_stamp_is_of_the_machine_the_code_and_the_parts(tmp_path, monkeypatch):
    import pages

    code = tmp_path / "code"
    (code / "inner").mkdir(parents=True)
    (code / "inner" / "a.py").write_text("1")
    stamps = [pages.stamp(code, 9.0), pages.stamp(code, 8.0)]
    assert pages.stamp(code, 9.0) == stamps[0]
    (code / "inner" / "a.py").write_text("2")
    stamps.append(pages.stamp(code, 9.0))
    monkeypatch.setattr(pages, "TRIMTAB", code)
    stamps.append(pages.stamp(code, 9.0))
    other = replace(machine(), versions=(("onnxruntime", "0.1"),))
    monkeypatch.setattr(pages, "this_machine", lambda: other)
    stamps.append(pages.stamp(code, 9.0))
    assert len(set(stamps)) == len(stamps)


def test_work_on_another_model_or_with_another_budget_is_kept_apart(tmp_path):
    import contest
    from assets import Asset

    (tmp_path / "m.onnx").write_text("1")
    asset = Asset(name="mine", model=tmp_path / "m.onnx", data=tmp_path, calibration=tmp_path / "c.npz")
    folders = [contest.kept(tmp_path, asset, "9m"), contest.kept(tmp_path, asset, "1m")]
    assert contest.kept(tmp_path, asset, "9m") == folders[0]
    (tmp_path / "m.onnx").write_text("2")
    folders.append(contest.kept(tmp_path, asset, "9m"))
    assert len(set(folders)) == 3
    assert {folder.parent for folder in folders} == {tmp_path}


def test_comparisons_of_other_settings_or_code_are_made_again(tmp_path, monkeypatch):
    import under_load

    made = []
    monkeypatch.setattr(under_load, "WORK", tmp_path)
    monkeypatch.setattr(under_load, "open_model", lambda *given: standing("a").entry.variant)
    monkeypatch.setattr(under_load, "trial", lambda *given, **more: made.append(given) or {
        "verdict": "slower", "value": 1.1, "low": 1.0, "high": 1.2, "seconds": 1.0, "noise": None})  # fmt: skip

    def run(seconds):
        given = SimpleNamespace(
            journal=tmp_path / "j", seconds=seconds, processes=5, threads=None, trials=1, results=tmp_path
        )
        under_load.run(given)

    run(9.0)
    run(9.0)
    assert len(made) == 3, "one without load, one of each kind"
    run(4.0)
    assert len(made) == 6


def test_a_column_of_changes_is_headed_with_the_level_of_their_intervals():
    from contest import Course

    held = {"asset": None, "original": None, "task": Task(), "folder": None}
    assert Course(goal=Goal(), **held).change == f"{Task().metric}, pt (90 %)"
    assert Course(goal=Goal(error=0.01), **held).change.endswith("pt (98 %)")
