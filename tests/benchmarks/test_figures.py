"""Figures and their verdicts, from runs whose outcome is known."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from trimtab.core.codec import to_plain
from trimtab.core.errors import BadInput
from trimtab.core.machine import machine
from trimtab.core.values import Model, NoWorse, Ratio, Settings, Signature, Task, Variant
from trimtab.testing import PERCEPTRON
from trimtab.workbench.timing import Timing


def variant(name):
    model = Model(format="onnx", path=Path("m.onnx"), digest=name, signature=Signature(inputs=(), outputs=()))
    return Variant(model=model, settings=Settings(runtime="onnxruntime"))


def quality(difference=0.0, proven=True, reason=""):
    return NoWorse(
        metric="accuracy", variant="a", baseline="b", max_drop=0.01, error=0.05, method="Tango's score test",
        items=1000, groups=1000, difference=difference, low=difference - 0.005, high=difference + 0.005, better=0,
        worse=0, flips=0, proven=proven, reason=reason,
    )  # fmt: skip


def entry(name, passes=True, made=True, seconds=0.0):
    from contest import Entry

    reason = "" if passes else "loses 3.0 pt"
    proof = quality(proven=passes, reason=reason) if made else None
    held = variant(name) if made else None
    return Entry(name=name, command=f"python {name}.py", variant=held, quality=proof, reason=reason, seconds=seconds)


def timing(*milliseconds, processes=3, rounds=20):
    """Return what a session would have measured of variants that always take the same time, the first as control."""
    times = np.array([*milliseconds, milliseconds[0]])[:, None] / 1000
    drift = np.linspace(1.0, 1.5, rounds)  # the machine slows down for all of them
    wall = tuple(times * drift for _ in range(processes))
    found = tuple(variant(f"{number}") for number in range(len(milliseconds)))
    return Timing(variants=found, control=0, wall_s=wall, cpu_s=wall, seed=0, margin=0.03)


class TestAgainstPeers:
    def test_the_fastest_comes_first_and_who_could_not_be_timed_last(self):
        from against_peers import standings

        entries = [entry("ours"), entry("broken", made=False), entry("slow"), entry("fast")]
        found = standings(entries, timing(1.0, 2.0, 0.5))
        assert [one.entry.name for one in found] == ["fast", "ours", "slow", "broken"]
        fast, ours, slow, broken = found
        assert (fast.over_ours.value, fast.ours_over.value) == pytest.approx((0.5, 2.0))
        assert slow.over_ours.value == pytest.approx(2.0)
        assert (ours.over_ours, broken.latency_s) == (None, None)

    def test_drift_that_hits_all_alike_leaves_the_ratio_but_not_the_median(self):
        from against_peers import median_s

        drifting = timing(1.0, 3.0)
        assert median_s(drifting, 1) == pytest.approx(3e-3 * 1.25)
        assert drifting.ratio(1, 0).value == pytest.approx(3.0)
        assert drifting.self_test().value == pytest.approx(1.0)

    def test_a_peer_tuned_by_hand_stands_beside_the_figure(self):
        from against_peers import EXTRA, fastest_passing, standings, verdicts

        entries = [entry("trimtab"), entry("default"), entry(f"static int8, {EXTRA}")]
        found = standings(entries, timing(1.0, 1.2, 0.9))
        assert fastest_passing(found).entry.name == "default"
        assert fastest_passing(found, extras=True).entry.name.endswith(EXTRA)
        lines, held = verdicts(found, entries[0])
        assert lines[0].startswith("- **met**")
        assert held["rival"] == "default"
        assert "beside the figure" in lines[2]

    def test_nothing_is_met_when_ours_was_not_proven_or_nobody_else_passes(self):
        from against_peers import standings, verdicts

        lost = [entry("trimtab", passes=False), entry("peer")]
        lines, held = verdicts(standings(lost, timing(1.0, 2.0)), lost[0])
        assert lines == ["- **NOT met**: loses 3.0 pt"]
        assert held == {"rival": None, "ratio": None}
        alone = [entry("trimtab"), entry("peer", passes=False)]
        assert verdicts(standings(alone, timing(1.0, 2.0)), alone[0])[0] == ["- **NOT met**: no peer passes"]

    def test_a_row_has_a_cell_for_every_column_whoever_it_is(self):
        from against_peers import row, standings

        entries = [entry("trimtab", seconds=12.0), entry("peer", passes=False), entry("broken", False, made=False)]
        rows = {one.entry.name: row(one) for one in standings(entries, timing(1.0, 2.0))}
        assert {len(cells) for cells in rows.values()} == {6}
        assert rows["trimtab"][0] == "**trimtab**"
        assert rows["trimtab"][-2:] == ["12", "proven"]
        assert rows["peer"][0] == "~~peer~~"
        assert rows["broken"] == ["~~broken~~", "", "", "", "", "loses 3.0 pt"]

    def test_a_difference_is_told_in_points_with_its_sign(self):
        from against_peers import difference

        assert difference(quality(-0.0123)) == "-1.23 (-1.73 to -0.73)"
        assert difference(None) == ""

    def test_shares_are_of_all_the_time_and_the_winners_part_is_not_counted_twice(self):
        from against_peers import shares, spent_lines

        spent = (("searching", 60.0), ("of it for the winner", 10.0), ("proof", 15.0), ("final timing", 25.0))
        found = SimpleNamespace(seconds=101.0, result=SimpleNamespace(spent=spent, trials=("a", "b")))
        held = shares(found)
        assert (held["accounted_s"], held["winner"], held["final"], held["trials"]) == (100.0, 0.1, 0.4, 2)
        assert "took 101 s: 2 variants tried, 10 % of the time" in spent_lines(found)[0]
        found.seconds = None
        assert "not known by the clock" in spent_lines(found)[0]


class TestContest:
    def asset(self, folder, **more):
        from assets import Asset

        return Asset(
            name="mine", model=folder / "my model.onnx", data=folder, calibration=folder / "c.npz",
            factory="mine.py:build", **more,
        )  # fmt: skip

    def test_a_peer_of_pytorch_gets_the_factory_and_its_weights_and_another_the_file(self, tmp_path):
        from contest import PEERS

        asset = self.asset(tmp_path, weights=tmp_path / "w.safetensors")
        for peer in PEERS:
            command = peer.command(asset, tmp_path / "out")
            given = dict(zip(command[2::2], command[3::2], strict=False))
            assert given["--model"] == ("mine.py:build" if peer.torch else str(asset.model))
            assert ("--weights" in given) == peer.torch
            assert Path(command[1]).is_file(), f"{peer.name} has no script"
        assert len({peer.key for peer in PEERS}) == len(PEERS), "each needs a folder of its own"

    def test_who_was_not_judged_does_not_pass(self):
        assert entry("a").passes
        assert not entry("a", passes=False).passes
        assert not entry("a", made=False).passes

    def test_what_a_peer_recorded_is_opened_as_it_runs(self, tmp_path, monkeypatch, capsys):
        import contest

        monkeypatch.syspath_prepend(str(contest.HERE / "peers"))
        import common

        model = tmp_path / "net.onnx"
        model.write_bytes(PERCEPTRON.graph(0).SerializeToString())
        common.record(tmp_path, model, {"runtime": "openvino", "precision": "bf16"})
        found = contest.opened(tmp_path)
        assert found.settings == Settings(runtime="openvino", precision="bf16")
        assert found.model.path == model
        common.record(tmp_path, tmp_path / "gone.onnx", {"runtime": "openvino"})
        with pytest.raises(BadInput, match=r"gone\.onnx"):
            contest.opened(tmp_path)

    def test_calibration_is_fed_one_item_at_a_time(self, tmp_path, monkeypatch):
        import contest

        monkeypatch.syspath_prepend(str(contest.HERE / "peers"))
        import common

        np.savez(tmp_path / "c.npz", x=np.arange(10).reshape(5, 2), mask=np.ones((5, 1)))
        fed = list(common.feeds(tmp_path / "c.npz", items=3))
        assert [one["x"].tolist() for one in fed] == [[[0, 1]], [[2, 3]], [[4, 5]]]
        assert len(list(common.feeds(tmp_path / "c.npz"))) == 5

    def test_the_last_words_of_a_peer_that_failed_are_its_last_line(self, tmp_path):
        from contest import _last_line

        log = tmp_path / "log.txt"
        log.write_text("step 1\nRuntimeError: no kernel\n\n   \n")
        assert _last_line(log) == "RuntimeError: no kernel"
        log.write_text("")
        assert _last_line(log) == "no message"

    def test_a_command_line_can_be_pasted_whatever_the_folder_is_called(self, tmp_path):
        import shlex

        command = self.asset(tmp_path / "my data", options=("--labels", "a b.txt")).command()
        assert shlex.split(command)[2:] == [
            str(tmp_path / "my data" / "my model.onnx"), "--data", str(tmp_path / "my data"), "--labels", "a b.txt",
        ]  # fmt: skip


class TestSpeedOnly:
    def test_the_lower_bound_of_the_speed_up_decides(self):
        from speed_only import lines

        entries = [entry("ours"), entry("eager"), entry("nncf")]
        told, held = lines(entries, timing(1.0, 9.0, 1.0), wanted=8.0)
        assert all("**met**" in line for line in told)
        assert held["over_eager"].value == pytest.approx(1 / 9)
        told, _ = lines(entries, timing(1.0, 7.9, 0.9), wanted=8.0)
        assert all("**NOT met**" in line for line in told)

    def test_a_peer_that_could_not_be_made_is_told_and_not_beaten(self):
        from speed_only import lines, rows

        entries = [entry("ours"), entry("eager"), entry("nncf", passes=False, made=False)]
        told, held = lines(entries, timing(1.0, 9.0), wanted=8.0)
        assert told[1] == "- **NOT met**: OpenVINO + NNCF loses 3.0 pt"
        assert held["over_nncf"] is None
        shown = rows(entries, timing(1.0, 9.0))
        assert [cells[2] for cells in shown] == ["9.00× (9.00 to 9.00)", "1", ""]
        assert shown[2][0] == "~~nncf~~"

    def test_eager_has_a_command_that_can_be_typed(self, tmp_path):
        from speed_only import EAGER

        asset = TestContest().asset(tmp_path, weights=tmp_path / "w.safetensors")
        command = EAGER.command(asset, tmp_path / "out")
        assert Path(command[1]).name == "torch_eager.py"
        assert Path(command[1]).is_file()
        assert command[2:6] == ["--model", "mine.py:build", "--weights", str(tmp_path / "w.safetensors")]

    def test_who_calibrates_on_what_certifies_is_told(self, tmp_path):
        from speed_only import seen

        asset = TestContest().asset(tmp_path)
        assert seen(asset) == ""
        assert "NNCF calibrates on all of them" in seen(replace(asset, data=asset.calibration))


class TestStartUp:
    def test_a_command_that_takes_twice_as_long_every_time_has_a_ratio_of_two(self):
        from startup import estimates, vars_of

        found = estimates({"numpy": [0.1, 0.2, 0.4], "trimtab --help": [0.2, 0.4, 0.8]})
        assert list(found) == ["trimtab --help"]
        told = vars_of(found["trimtab --help"])
        assert (told["value"], told["runs"]) == (pytest.approx(2.0), 3)

    @pytest.mark.parametrize(("slower", "extra", "met"), [(2.0, [], 3), (4.0, [], 2), (2.0, ["torch"], 1)])
    def test_each_figure_is_met_or_not_on_its_own(self, slower, extra, met):
        from startup import body, estimates

        names = ("trimtab --help", "trimtab inspect digits.onnx")
        times = {"numpy": [0.1] * 5, **{name: [0.1 * slower] * 5 for name in names}}
        loaded = {name: ["sklearn", "onnx", *extra] if "inspect" in name else extra for name in names}
        page = body(times, estimates(times), loaded)
        assert any(f"`trimtab inspect`, which reads a model, takes {slower:.2f}×" in line for line in page)
        assert sum("**met**" in line for line in page) == met
        assert sum("**NOT met**" in line for line in page) == 3 - met


class TestUnderLoad:
    def summary(self, kind, **counts):
        from under_load import summary

        rows = [
            {"kind": kind, "verdict": verdict, "value": 1.0, "seconds": 10.0, "noise": None}
            for verdict, count in counts.items()
            for _ in range(count)
        ]
        return summary(rows, kind)

    def test_a_verdict_is_wrong_by_its_sign_or_by_being_one_at_all(self):
        from under_load import wrong

        verdicts = ("faster", "slower", "equivalent", "inconclusive")
        found = {kind: [said for said in verdicts if wrong(kind, said)] for kind in ("same", "larger")}
        assert found == {"same": ["faster", "slower"], "larger": ["faster"]}

    def test_the_figures_are_those_of_the_issue(self):
        from under_load import figures

        same = self.summary("same", equivalent=30, inconclusive=9, faster=1)
        good = [same, self.summary("larger", slower=32, inconclusive=8)]
        assert all("**met**" in line for line in figures(good, 40))
        bad = [self.summary("same", equivalent=29, faster=2), self.summary("larger", slower=31, faster=1)]
        assert [("NOT" in line) for line in figures(bad, 40)] == [True, True, True, True, False]

    def test_fewer_trials_need_as_large_a_share(self):
        from under_load import figures

        found = [self.summary("same", equivalent=3, inconclusive=1), self.summary("larger", slower=3, equivalent=1)]
        assert "(at least 3)" in figures(found, 4)[1]
        assert all("**met**" in line for line in figures(found, 4))


class TestKills:
    @pytest.mark.parametrize(
        ("marks", "lines", "doing"),
        [
            ([], [], "opening"),
            (["variants/a/variant.json"], ["{}", "{}"], "searching, 2 trials done"),
            (["certify.json", "playoff/0/0.npz"], ["{}"], "play-off"),
            (["playoff/0/0.npz", "proofs/a.json", "answers/a.npy"], ["{}"], "proving"),
            (["proofs/a.json", "timing/a/0.npz"], ["{}"], "final timing"),
            (["proofs/a.json", "timing/a/0.npz", "measurements/a.json"], ["{}"], "measuring"),
        ],
    )
    def test_what_was_under_way_is_told_by_what_was_finished(self, marks, lines, doing):
        from kill_and_resume import stage

        assert stage(lines, dict.fromkeys(marks, (0, 0))) == doing

    @pytest.mark.parametrize("playoff", ["playoff/0", "playoff/3f2a/0"])
    def test_the_play_off_and_the_number_of_certified_items_are_watched(self, tmp_path, playoff):
        from kill_and_resume import finished, repeated

        (tmp_path / playoff).mkdir(parents=True)
        names = ["certify.json", f"{playoff}/0.npz", f"{playoff}/a.json"]
        for name in (*names, f"{playoff}/0.log"):
            (tmp_path / name).write_text("1")
        marks = finished(tmp_path)
        assert sorted(marks) == names
        (tmp_path / names[1]).unlink()
        assert repeated([], marks, tmp_path) == [names[1]]

    def test_every_kill_counts_for_both_figures(self):
        from kill_and_resume import body

        row = {"after_s": 2.0, "stage": "proving", "finished": 3, "completed": True, "exit_code": 0, "seconds": 9.0,
               "repeated": []}  # fmt: skip
        rows = [row, {**row, "after_s": 1.0, "completed": False, "exit_code": 2, "repeated": ["trial a"]}]
        page = body(rows, {"seconds": 20.0, "trials": 8}, "trimtab optimize …")
        assert "- **NOT met**: 1 of 2 re-runs complete" in page
        assert "- **NOT met**: 1 of 2 repeat nothing but what was under way" in page
        told = [line for line in page if line.startswith("| ") and "proving" in line]
        assert told[0] == "| 1.0 | proving | 3 | exit code 2 | 9.0 | trial a |", "in the order of the moments"


def test_mistakes_in_e_mails_are_those_that_scikit_learn_counts():
    from spam import counted

    rng = np.random.default_rng(0)
    labels, given = rng.integers(0, 2, 200), rng.random(200)
    found = counted(Task(kind="binary", costs=(10.0, 1.0), threshold=0.3, logits=False), labels, given)
    said = given >= 0.3
    assert found["recall"] == pytest.approx(metrics.recall_score(labels, said))
    assert found["precision"] == pytest.approx(metrics.precision_score(labels, said))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
    ((_, alarms), (misses, _)) = metrics.confusion_matrix(labels, said)
    assert (found["misses"], found["false_alarms"]) == (misses, alarms)
    assert found["cost_per_1000"] == pytest.approx(1000 * (10 * misses + alarms) / 200)


def test_the_threshold_for_accuracy_is_tuned_on_the_original_as_in_the_report(monkeypatch):
    import spam
    from trimtab.meters.quality import tune_threshold

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    noisy = {name: np.clip(0.5 * labels + shift + 0.3 * rng.random(300), 0, 1) for name, shift in
             (("original", 0.0), ("winner", 0.2))}  # fmt: skip
    monkeypatch.setattr(spam, "outputs", lambda here, variant, split: (noisy[variant], labels))
    task = Task(kind="binary", metric="recall", costs=(10.0, 1.0), threshold=0.3, logits=False)
    found = spam.choices(SimpleNamespace(task=task, original="original"), "winner")
    plain = replace(task, metric="accuracy", costs=None)
    tuned = {name: tune_threshold(plain, labels, given) for name, given in noisy.items()}
    assert tuned["original"] != tuned["winner"]
    assert found["ours, threshold tuned for accuracy instead"]["threshold"] == tuned["original"]


class TestItems:
    def test_compressed_idx_files_are_read_like_plain_ones(self, tmp_path):
        import items

        array = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
        items.write_idx(tmp_path / "plain", array)
        (tmp_path / "packed.gz").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
        np.testing.assert_array_equal(items.read_idx(tmp_path / "packed.gz"), array)

    def test_only_the_first_training_items_are_kept_and_all_that_are_judged(self, tmp_path):
        import items

        source = tmp_path / "source"
        source.mkdir()
        images, numbers = np.arange(20, dtype=np.uint8).reshape(5, 2, 2), np.arange(5, dtype=np.uint8)
        for part, array in (("images-idx3", images), ("labels-idx1", numbers)):
            items.write_idx(source / "plain", array)
            packed = gzip.compress((source / "plain").read_bytes())
            (source / f"train-{part}-ubyte.gz").write_bytes(packed)
            (source / f"t10k-{part}-ubyte.gz").write_bytes(packed)
        kept = items.copy_idx(source, tmp_path / "target", train_items=3)
        np.testing.assert_array_equal(kept[0], images[:3])
        np.testing.assert_array_equal(items.read_idx(tmp_path / "target" / "train-labels-idx1-ubyte"), numbers[:3])
        np.testing.assert_array_equal(items.read_idx(tmp_path / "target" / "t10k-images-idx3-ubyte.gz"), images)

    def test_texts_are_cut_and_padded_to_one_length(self, tmp_path):
        tokenizers = pytest.importorskip("tokenizers")
        import items

        known = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]")
        tokenizer = tokenizers.Tokenizer(known)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        found = items.tokenize(tmp_path / "tokenizer.json", ["a b", "b b b b ü"], length=4)
        assert found["input_ids"].tolist() == [[1, 2, 0, 0], [2, 2, 2, 2]]
        assert found["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


class TestNetworks:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_a_head_answers_like_the_regression_that_it_was_fitted_by(self, torch):
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        import networks

        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 90)
        features = (rng.normal(size=(90, 5)) * [1, 10, 0.1, 5, 2] + labels[:, None]).astype(np.float32)
        head = networks.linear_head(features, labels)
        found = torch.from_numpy(features) @ head["head.weight"].T + head["head.bias"]
        scaler = StandardScaler().fit(features)
        reference = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(features), labels)
        expected = reference.decision_function(scaler.transform(features))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)

    def test_a_dead_feature_gets_no_weight_that_other_types_could_not_hold(self, torch):
        import networks

        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 90)
        features = (rng.normal(size=(90, 4)) * [1, 1e-32, 1e-9, 2] + labels[:, None] * [1, 0, 0, 1]).astype(np.float32)
        weight = networks.linear_head(features, labels)["head.weight"].numpy()
        assert np.all(weight[:, 1:3] == 0)
        assert 0 < np.abs(weight).max() < 100

    def test_all_rows_are_answered_in_their_order_whatever_the_batches(self, torch):
        import networks

        module = torch.nn.Linear(3, 2)
        x = np.random.default_rng(1).normal(size=(37, 3)).astype(np.float32)
        found = networks.forward(module, {"input": x[:, ::-1]})
        weight, bias = (parameter.detach().numpy() for parameter in module.parameters())
        np.testing.assert_allclose(found, x[:, ::-1] @ weight.T + bias, atol=1e-5)

    def test_statistics_come_from_the_images_and_the_module_is_ready_to_answer(self, torch):
        import networks

        module = torch.nn.Sequential(torch.nn.BatchNorm2d(2)).train()
        images = np.random.default_rng(2).normal(3.0, 2.0, size=(64, 2, 4, 4)).astype(np.float32)
        networks.set_statistics(module, images)
        assert not module.training
        np.testing.assert_allclose(module[0].running_mean.numpy(), images.mean((0, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(module[0].running_var.numpy(), images.var((0, 2, 3)), rtol=0.05)

    def test_weights_are_all_there_or_it_is_an_error(self, torch):
        import networks

        whole = networks.build("words.py:build").state_dict()
        assert set(networks.build("words.py:build", whole).state_dict()) == set(whole)
        with pytest.raises(RuntimeError, match="Missing key"):
            networks.build("words.py:build", {name: whole[name] for name in list(whole)[1:]})

    def test_a_random_network_that_answers_the_same_to_everything_is_refused(self):
        pytest.importorskip("torch")
        import assets

        rng = np.random.default_rng(0)
        assets._must_tell_apart(rng.normal(size=(16, 10)).astype(np.float32))
        with pytest.raises(SystemExit, match="has collapsed"):
            assets._must_tell_apart(np.ones((16, 10), np.float32) + rng.normal(size=(16, 10)) * 1e-3)

    def test_shuffling_loses_nothing_and_is_the_same_every_time(self):
        pytest.importorskip("torch")
        import assets

        given = [f"text {number}" for number in range(50)]
        assert assets._shuffled(given) == assets._shuffled(given) != given
        assert sorted(assets._shuffled(given)) == sorted(given)

    def test_hashed_words_know_neither_case_nor_order(self):
        pytest.importorskip("torch")
        import assets

        one, same, other = assets._hashed_words(["Buy cheap pills", "pills CHEAP buy", "meet at noon"])
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)
        assert np.linalg.norm(one) == pytest.approx(1.0)


class TestPages:
    def test_a_ratio_and_its_reciprocal_say_the_same(self):
        from pages import faster, times

        found = Ratio(
            reading="latency", variant="a", baseline="b", value=0.5, low=0.4, high=0.8, level=0.95, margin=0.03,
            verdict="faster", blocks=1, processes=1,
        )  # fmt: skip
        assert times(found) == "0.500× (0.400 to 0.800)"
        assert faster(found) == "2.00× (1.25 to 2.50)"

    def test_nothing_is_struck_through_where_nothing_is_written(self):
        from pages import struck

        assert (struck("a"), struck(""), struck(0)) == ("~~a~~", "", "~~0~~")

    def test_the_home_is_the_benchmarks_own_unless_somebody_says_another(self, monkeypatch):
        import os

        from pages import WORK, own_home

        monkeypatch.delenv("TRIMTAB_HOME", raising=False)
        own_home()
        assert os.environ.pop("TRIMTAB_HOME") == str(WORK / "home")
        monkeypatch.setenv("TRIMTAB_HOME", "/elsewhere")
        own_home()
        assert os.environ["TRIMTAB_HOME"] == "/elsewhere"

    def test_only_searches_that_were_run_are_told(self, tmp_path):
        from searches import held

        page = {"search": {"seconds": 1.0}, "command": "trimtab optimize m --budget 2m", "machine": to_plain(machine())}
        (tmp_path / "spam.json").write_text(json.dumps(page))
        (tmp_path / "startup.json").write_text(json.dumps({"seconds": {}}))
        assert held(tmp_path) == {"spam": {"seconds": 1.0, "budget": "2m"}}

    def test_searches_of_another_machine_are_left_out_and_that_is_said(self, tmp_path, capsys):
        from searches import held

        other = to_plain(replace(machine(), cpu="another"))
        page = {"search": {"seconds": 1.0}, "commands": ["trimtab optimize m --budget 9m"], "machine": other}
        (tmp_path / "peers-mnist.json").write_text(json.dumps(page))
        assert held(tmp_path) == {}
        assert "peers-mnist.json is of another machine" in capsys.readouterr().out

    def test_a_search_that_was_continued_is_judged_by_the_time_it_accounts_for(self):
        from searches import body

        search = {"seconds": None, "accounted_s": 95.0, "trials": 9, "winner": 0.1, "final": 0.4, "budget": "55s"}
        page = body({"peers-digits": search})
        assert "| peers-digits | 55s | continued | 9 | 10 % | 40 % |" in page
        assert "- **NOT met**: peers-digits: 95 s with a budget of 55s (at most 90 s)" in page


@pytest.mark.parametrize(("added", "met"), [(1.0, True), (9.0, False)])
def test_what_a_bundle_adds_is_met_or_not_by_its_upper_bound(added, met):
    from load_overhead import body, told

    row = told("onnxruntime", np.random.default_rng(0).normal(added, 0.1, 200))
    assert row["low"] < row["added_us"] < row["high"]
    assert any(line.startswith("- **met**" if met else "- **NOT met**") for line in body([row]))


def test_what_a_call_takes_is_told_in_microseconds_and_by_which_one_is_slower():
    import time

    from load_overhead import differences, median_us

    assert median_us(lambda inputs: time.sleep(0.002), {}) >= 2000
    found = differences(lambda inputs: None, lambda inputs: time.sleep(0.001), rounds=10)
    assert len(found) == 9, "the first tenth warms up"
    assert np.median(found) >= 900
