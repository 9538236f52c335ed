import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trimtab.core.codec import dumps, loads
from trimtab.core.errors import BadInput
from trimtab.core.values import Step, Task, options
from trimtab.data.batches import batches, feeds, labels, prepare_raw
from trimtab.data.checks import overlap
from trimtab.data.task import DataRequest, items_to_certify, open_task, sample
from trimtab.stats.noninferiority import fewest_items

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(900, 4)).astype(np.float32)
LABELS = np.arange(900) % 10


def rows(task: Task) -> dict[str, int]:
    return {split.name: len(split) for split in task.splits}


def test_arrays_become_three_splits_of_what_was_given(tmp_path: Path, make_model) -> None:
    task = open_task((INPUTS, LABELS), make_model(), tmp_path)
    assert rows(task) == {"calibrate": 112, "select": 225, "certify": 563}
    for split in task.splits:
        chosen = np.load(split.rows.path)
        np.testing.assert_array_equal(feeds(task, split, slice(None))["x"], INPUTS[chosen])
        np.testing.assert_array_equal(labels(split), LABELS[chosen])
    assert (task.kind, task.metric, len(task.classes), task.notes) == ("classification", "accuracy", 10, ())


def test_opening_again_gives_an_equal_task_and_reuses_the_files(tmp_path: Path, make_model) -> None:
    first = open_task((INPUTS, LABELS), make_model(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert open_task((INPUTS.copy(), LABELS), make_model(), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == before


def test_a_damaged_file_is_written_anew(tmp_path: Path, make_model) -> None:
    first = open_task((INPUTS, LABELS), make_model(), tmp_path)
    first.split("certify").inputs[0].path.write_bytes(b"gone")
    open_task((INPUTS, LABELS), make_model(), tmp_path)
    assert len(next(batches(first, first.split("certify"), 9))["x"]) == 9


def test_any_change_of_content_or_meaning_changes_the_digest(tmp_path: Path, make_model) -> None:
    changed, relabelled = INPUTS.copy(), LABELS.copy()
    changed[17, 2] += 1e-3
    relabelled[5] = 3
    scaled = (Step(technique="scale", options=options(divisor=2.0)),)
    digests = [
        open_task(source, make_model(), tmp_path, request).digest
        for source, request in (
            ((INPUTS, LABELS), DataRequest()),
            ((changed, LABELS), DataRequest()),
            ((INPUTS, relabelled), DataRequest()),
            ((INPUTS, LABELS), DataRequest(seed=1)),
            ((INPUTS, LABELS), DataRequest(metric="f1_macro")),
            ((INPUTS, LABELS), DataRequest(preprocess=scaled)),
        )
    ]
    assert len(set(digests)) == len(digests)


def test_an_edited_metric_is_another_task(tmp_path: Path, make_model, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, helper = tmp_path / "edited_metric.py", tmp_path / "edited_helper.py"
    code.write_text("from edited_helper import scaled\nown = lambda labels, outputs: scaled(1.0)\n")
    helper.write_text("def scaled(number):\n    return number\n")

    def digest(metric: str) -> str:
        return open_task((INPUTS, LABELS), make_model(), tmp_path / "kept", DataRequest(metric=metric)).digest

    first, through = digest("edited_metric:own"), digest("edited_metric:scaled")
    assert digest("edited_metric:own") == first
    helper.write_text("def scaled(number):\n    return 2 * number\n")
    assert digest("edited_metric:scaled") != through, "it is only named here, and comes from there"
    code.write_text(code.read_text() + "# tuned\n")
    assert digest("edited_metric:own") != first


def test_a_metric_that_can_not_be_found_is_told_before_anything_runs(tmp_path: Path, make_model) -> None:
    with pytest.raises(BadInput, match="the module nowhere_at_all can't be imported"):
        open_task((INPUTS, LABELS), make_model(), tmp_path, DataRequest(metric="nowhere_at_all:own"))


def test_the_digest_does_not_depend_on_the_folder(tmp_path: Path, make_model) -> None:
    first, second = (open_task((INPUTS, LABELS), make_model(), tmp_path / name) for name in "ab")
    assert first.digest == second.digest


def test_the_steps_of_a_task_open_an_equal_task(tmp_path: Path, make_model, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice_as_much.py").write_text("def prepare(batch):\n    return batch * 2.0\n")
    source = (INPUTS.astype(np.float64), LABELS)
    own = Step(technique="call", options=options(function="twice_as_much:prepare"))
    first = open_task(source, make_model(), tmp_path, DataRequest(preprocess=[own]))
    again = open_task(source, make_model(), tmp_path, DataRequest(preprocess=first.preprocessing))
    assert (again.preprocessing, again.digest) == (first.preprocessing, first.digest)
    assert [step.technique for step in first.preprocessing] == ["call", "cast"]


def test_an_edited_function_never_meets_older_results(tmp_path: Path, make_model, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    digests = []
    for number, factor in enumerate((1, 2)):
        (tmp_path / f"edited_{number}.py").write_text(f"def prepare(batch):\n    return batch * {factor}\n")
        request = DataRequest(preprocess=f"edited_{number}:prepare")
        task = open_task((INPUTS, LABELS), make_model(), tmp_path / "data", request)
        split = task.split("select")
        np.testing.assert_array_equal(feeds(task, split, slice(None))["x"], INPUTS[np.load(split.rows.path)] * factor)
        digests.append(task.digest)
    assert digests[0] != digests[1]


def test_a_task_survives_being_written_down(tmp_path: Path, make_model) -> None:
    task = open_task((INPUTS, LABELS), make_model(), tmp_path)
    assert loads(Task, dumps(task)) == task


def test_float64_is_cast_and_that_is_recorded_and_said(tmp_path: Path, make_model) -> None:
    task = open_task((INPUTS.astype(np.float64), LABELS), make_model(), tmp_path)
    assert task.preprocessing == (Step(technique="cast", options=options(dtype="float32", input="x")),)
    assert "cast to float32" in task.notes[0]
    assert next(batches(task, task.split("select"), 2))["x"].dtype == np.float32


def test_whole_numbers_that_do_not_fit_the_models_dtype_are_refused(tmp_path: Path, make_model) -> None:
    ids = np.full((900, 4), 2**40)
    with pytest.raises(BadInput, match="don't fit int32"):
        open_task((ids, LABELS), make_model(x=("int32", "N", 4)), tmp_path)


def test_raw_pixels_without_a_scale_are_refused_with_a_hint(tmp_path: Path, make_model) -> None:
    pixels = np.zeros((900, 1, 8, 8), np.uint8)
    with pytest.raises(BadInput, match=r"float32 \[N, 1, 8, 8\].*uint8 \[N, 1, 8, 8\].*--preprocess"):
        open_task((pixels, LABELS), make_model(x=("float32", "N", 1, 8, 8)), tmp_path)


def test_nan_in_the_inputs_is_found_and_its_item_named(tmp_path: Path, make_model) -> None:
    broken = INPUTS.copy()
    broken[321, 1] = np.nan
    with pytest.raises(BadInput, match="item 321 of the input 'x' holds NaN"):
        open_task((broken, LABELS), make_model(), tmp_path)
    assert not list(tmp_path.rglob("*writing*"))


def test_an_idx_folder_calibrates_on_train_and_judges_t10k_as_it_is_kept(tmp_path: Path, make_model) -> None:
    images = {"train": RNG.integers(0, 256, (400, 8, 8)), "t10k": RNG.integers(0, 256, (200, 8, 8))}
    for name, pixels in images.items():
        count = len(pixels)
        head, tail = struct.pack(">4B3I", 0, 0, 8, 3, count, 8, 8), struct.pack(">4BI", 0, 0, 8, 1, count)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.astype("u1").tobytes()))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(tail + (np.arange(count) % 10).astype("u1").tobytes())
    model = make_model(x=("float32", "N", 1, 8, 8))
    task = open_task(str(tmp_path), model, tmp_path / "kept", DataRequest(preprocess="mnist"))
    assert rows(task) == {"train": 350, "calibrate": 50, "select": 50, "certify": 150}
    certify = task.split("certify")
    assert certify.inputs[0].dtype == "uint8"
    assert certify.inputs[0].shape == (150, 8, 8)
    chosen = np.concatenate([images["t10k"], images["train"]])[np.load(certify.rows.path)]
    made = feeds(task, certify, slice(None))["x"][:, 0]
    np.testing.assert_allclose(made, (chosen / 255 - 0.1307) / 0.3081, atol=1e-6)


def test_photos_of_mixed_size_need_a_resize_and_are_kept_small(tmp_path: Path, make_model) -> None:
    for name, size in (("cat", (20, 30)), ("dog", (40, 24))):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(10):
            pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{number}.png")
    model = make_model(width=2, x=("float32", "N", 3, 16, 16))
    free = make_model(width=2, x=("float32", "N", 3, "H", "W"))
    with pytest.raises(BadInput, match=r"dog/\d\.png is uint8 \[40, 24, 3\] where cat/\d\.png .*resize and crop"):
        open_task(
            tmp_path / "val",
            free,
            tmp_path / "kept",
            DataRequest(preprocess=[Step(technique="layout"), Step(technique="scale")]),
        )
    task = open_task(tmp_path / "val", model, tmp_path / "kept", DataRequest(preprocess="imagenet"))
    assert {file.dtype for split in task.splits for file in split.inputs} == {"uint8"}
    assert task.split("certify").inputs[0].shape[1:] == (16, 16, 3)
    assert next(batches(task, task.split("certify"), 3))["x"].shape == (3, 3, 16, 16)
    assert (task.kind, task.classes) == ("binary", ("cat", "dog"))
    first = int(np.load(task.split("certify").rows.path)[0])
    image = np.asarray(Image.open(tmp_path / "val" / "cat" / sorted(f"{n}.png" for n in range(10))[first]))
    raw = prepare_raw({"x": image[None]}, task.preprocessing, model)
    np.testing.assert_array_equal(raw["x"], feeds(task, task.split("certify"), slice(0, 1))["x"])
    kept = task.split("select").raw
    assert (kept.dtype, kept.shape[1:] in ((20, 30, 3), (40, 24, 3))) == ("uint8", True), "before any step"
    raw = prepare_raw({"x": np.load(kept.path)[:1]}, task.preprocessing, model)
    np.testing.assert_array_equal(raw["x"], feeds(task, task.split("select"), slice(0, 1))["x"])
    assert task.split("certify").raw is None


def test_sounds_of_mixed_rate_need_a_resample(tmp_path: Path, make_model) -> None:
    from scipy.io import wavfile

    for name in ("no", "yes"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(8):
            rate = 8000 if number % 2 else 16000
            sound = (RNG.normal(size=rate // 10) * 1000).astype(np.int16)
            wavfile.write(tmp_path / "val" / name / f"{number}.wav", rate, sound)
    model = make_model(width=2, x=("float32", "N", 800))
    pad, scale = (
        Step(technique="pad", options=options(length=800)),
        Step(technique="scale", options=options(divisor=32768)),
    )
    with pytest.raises(BadInput, match=r"samples per second.*resample"):
        open_task(tmp_path / "val", model, tmp_path / "kept", DataRequest(preprocess=[pad, scale]))
    resample = Step(technique="resample", options=options(rate=8000))
    task = open_task(tmp_path / "val", model, tmp_path / "kept", DataRequest(preprocess=[resample, pad, scale]))
    assert task.split("certify").inputs[0].dtype == "int16"
    assert task.split("select").raw is None, "without its file nobody knows the rate of a sound"
    assert next(batches(task, task.split("certify"), 3))["x"].shape == (3, 800)


def test_texts_are_tokenized_once_with_the_tokenizer_beside_the_model(tmp_path: Path, make_model) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "buy", "hello"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    lines = [f"{'spam' if row % 3 == 0 else 'ham'},{'buy' if row % 3 == 0 else 'hello hello'}" for row in range(60)]
    (tmp_path / "mail.csv").write_text("label,text\n" + "\n".join(lines))
    shape = ("int32", "N", "T")
    model = make_model(width=2, path=str(tmp_path / "model.onnx"), input_ids=shape, attention_mask=shape)
    with pytest.raises(BadInput, match=r"name the tokenizer\.json"):
        open_task(tmp_path / "mail.csv", model, tmp_path / "kept")
    made.save(str(tmp_path / "tokenizer.json"))
    task = open_task(tmp_path / "mail.csv", model, tmp_path / "kept", DataRequest(positive="spam"))
    split = task.split("certify")
    feed = feeds(task, split, slice(None))
    assert feed["input_ids"].dtype == np.int32
    spam = np.load(split.rows.path) % 3 == 0
    assert feed["input_ids"][spam].tolist() == [[2, 0]] * int(spam.sum())
    assert feed["attention_mask"][~spam].tolist() == [[1, 1]] * int((~spam).sum())
    select = task.split("select")
    texts = ["buy" if row % 3 == 0 else "hello hello" for row in np.load(select.rows.path)]
    assert np.load(select.raw.path).tolist() == texts[: len(np.load(select.raw.path))] != []
    assert open_task(tmp_path / "mail.csv", model, tmp_path / "kept", DataRequest(positive="spam")) == task
    raw = prepare_raw({"text": np.array(["buy", "hello hello"])}, task.preprocessing, model)
    assert {name: array.tolist() for name, array in raw.items()} == {
        "input_ids": [[2, 0], [3, 3]],
        "attention_mask": [[1, 0], [1, 1]],
    }
    assert raw["input_ids"].dtype == np.int32
    short = prepare_raw({"text": np.array(["buy"])}, task.preprocessing, model)
    assert short["input_ids"].tolist() == [[2]], "padded to the longest of these texts, not of the data"
    assert task.classes[task.positive] == "spam"
    assert task.preprocessing[0].technique == "tokenize"


def test_whole_sequences_feed_a_stateful_model(tmp_path: Path, make_model) -> None:
    from dataclasses import replace

    from trimtab.core.values import TensorSpec

    model = make_model(x=("float32", "N", 4))
    state = TensorSpec(name="h", dtype="float32", shape=("N", 7), role="state", fed_by="h_next")
    signature = replace(model.signature, inputs=(*model.signature.inputs, state))
    sequences = RNG.normal(size=(100, 12, 4)).astype(np.float32)
    task = open_task((sequences, LABELS[:100]), replace(model, signature=signature), tmp_path)
    assert next(batches(task, task.split("select"), 2))["x"].shape == (2, 12, 4)


def test_items_shared_with_the_certify_split_are_counted_and_said(tmp_path: Path, make_model) -> None:
    split = np.array(["calibrate"] * 20 + ["select"] * 30 + ["certify"] * 50)
    inputs = INPUTS[:100].copy()
    inputs[60], inputs[61], inputs[62] = inputs[3], inputs[4], inputs[25]
    task = open_task({"x": inputs, "labels": LABELS[:100], "split": split}, make_model(), tmp_path)
    assert overlap(task) == {"calibrate": 2, "select": 1}
    assert any("2 of 50 certify items also occur in calibrate" in note for note in task.notes)


@pytest.mark.parametrize("extra", [-1, 0])
def test_too_few_items_for_any_proof_are_said_before_searching(tmp_path: Path, make_model, extra: int) -> None:
    needed = fewest_items(0.01)
    assert needed == 299
    count = needed + extra + 16
    split = np.array(["calibrate"] * 8 + ["select"] * 8 + ["certify"] * (needed + extra))
    task = open_task({"x": INPUTS[:count], "labels": LABELS[:count], "split": split}, make_model(), tmp_path)
    assert any("at least 299 are needed" in note for note in task.notes) == (extra < 0)


def test_groups_are_what_a_proof_counts(tmp_path: Path, make_model) -> None:
    source = {"x": INPUTS, "labels": LABELS, "groups": np.arange(900) // 30}
    task = open_task(source, make_model(), tmp_path)
    assert any("certify groups can't prove" in note for note in task.notes)


@pytest.mark.parametrize(("kind", "labelled"), [("regression", True), ("regression", False), ("embedding", False)])
@pytest.mark.parametrize("items", [58, 59])
def test_too_few_items_for_any_proof_about_numbers_are_said_before_searching(
    tmp_path: Path, make_model, kind: str, labelled: bool, items: int
) -> None:
    source = {"x": INPUTS[: items + 16], "split": np.array(["calibrate"] * 8 + ["select"] * 8 + ["certify"] * items)}
    if labelled:
        source["labels"] = np.random.default_rng(0).normal(size=items + 16)
    request = DataRequest(kind=kind, max_drop=0.05)
    told = [note for note in open_task(source, make_model(width=1), tmp_path, request).notes if "can't prove" in note]
    assert len(told) == (items < 59)
    assert all("58 certify items can't prove anything about" in note for note in told)
    assert all("at least 59 are needed; give more data" in note for note in told)


@pytest.mark.parametrize(("metric", "told"), [("recall", True), ("accuracy", False)])
def test_recall_is_planned_for_by_the_positive_items(tmp_path: Path, make_model, metric: str, told: bool) -> None:
    labels = (np.arange(900) % 10 == 0).astype(np.int64)
    task = open_task((INPUTS, labels), make_model(width=2), tmp_path, DataRequest(metric=metric))
    notes = [note for note in task.notes if "can't prove" in note]
    assert bool(notes) == told
    positives = int(np.load(task.split("certify").labels.path).sum())
    for note in notes:
        assert note.startswith(f"{positives} certify items of the positive class can't prove that at most 1 pt is lost")
        assert "at least 299 are needed" in note


def test_groups_with_positive_items_are_what_recall_counts(tmp_path: Path, make_model) -> None:
    labels = (np.arange(900) % 40 == 0).astype(np.int64)  # in every other group
    source = {"x": INPUTS, "labels": labels, "groups": np.arange(900) // 20}
    task = open_task(source, make_model(width=2), tmp_path, DataRequest(metric="recall"))
    (note,) = (note for note in task.notes if "can't prove" in note)
    certify = task.split("certify")
    held = np.unique(np.load(certify.groups.path)[np.load(certify.labels.path) == 1])
    assert note.startswith(f"{len(held)} certify groups of the positive class can't prove that at most 1 pt is lost")


def test_groups_of_unequal_size_are_planned_for_as_they_are_tested(tmp_path: Path, make_model) -> None:
    sizes = [1] * 100 + [96] * 8  # groups that tell little more than the large ones alone
    groups = np.repeat(np.arange(108), sizes)[:860]
    split = np.array(["calibrate"] * 20 + ["select"] * 20 + ["certify"] * 820)
    source = {"x": INPUTS[:860], "labels": LABELS[:860], "groups": groups, "split": split}
    notes = open_task(source, make_model(), tmp_path, DataRequest(max_drop=0.05)).notes
    assert fewest_items(0.05) < 68
    assert any("68 certify groups can't prove that at most 5 pt is lost" in note for note in notes)


def test_items_to_certify_hold_as_many_as_the_metric_must_see(tmp_path: Path, make_model) -> None:
    labels = (np.arange(900) % 10 == 0).astype(np.int64)
    task = open_task((INPUTS, labels), make_model(width=2), tmp_path, DataRequest(metric="recall"))
    certify = task.split("certify")
    share = len(certify) / np.load(certify.labels.path).sum()
    assert items_to_certify(task, certify, 0.1, 0.05) == np.ceil(fewest_items(0.1) * share)
    plain = open_task((INPUTS, labels), make_model(width=2), tmp_path, DataRequest())
    assert items_to_certify(plain, certify, 0.1, 0.05) == fewest_items(0.1)


def test_a_sample_keeps_the_share_of_every_class(tmp_path: Path, make_model) -> None:
    labels_ = (np.arange(900) % 30 == 0).astype(np.int64)
    whole = open_task((INPUTS, labels_), make_model(width=2), tmp_path).split("certify")
    expected = np.load(whole.labels.path).mean() * 120
    for seed in range(30):
        assert abs(labels(sample(whole, 120, seed, tmp_path)).sum() - expected) <= 1
    assert len(sample(whole, 5000, 0, tmp_path)) == len(whole)


@pytest.mark.parametrize(
    "source, request_, message",
    [
        ((INPUTS, LABELS[:-1]), DataRequest(), "differ in length"),
        ((INPUTS[:7], LABELS[:7]), DataRequest(), "too few"),
        ((INPUTS, LABELS + 5), DataRequest(), "never saw"),
        ((INPUTS, LABELS), DataRequest(output="nothing"), "no output 'nothing'"),
        ((INPUTS, LABELS), DataRequest(costs=(1.0, 2.0)), "two classes"),
        ((INPUTS, None), DataRequest(metric="recall"), "needs labels"),
        ((["a"] * 9, LABELS[:9]), DataRequest(), "the data is text"),
        (
            (INPUTS, LABELS),
            DataRequest(preprocess=[Step(technique="tokenize", options=options(tokenizer="t"))]),
            "needs texts",
        ),
    ],
)
def test_what_can_not_be_used_is_one_clear_line(tmp_path: Path, make_model, source, request_, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        open_task(source, make_model(), tmp_path, request_)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels_, width, costs, metric",
    [
        (None, 10, None, "agreement"), (None, 1, None, "relative_error"), (LABELS / 7, 1, None, "r2"),
        (LABELS % 2, 2, None, "accuracy"), (LABELS % 2, 2, (10.0, 1.0), "cost"),
    ],
)  # fmt: skip
def test_the_metric_follows_from_the_kind(tmp_path: Path, make_model, labels_, width, costs, metric: str) -> None:
    assert open_task((INPUTS, labels_), make_model(width=width), tmp_path, DataRequest(costs=costs)).metric == metric


def test_a_folder_that_can_not_be_written_is_one_clear_line(tmp_path: Path, make_model) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="can't create the folder"):
        open_task((INPUTS, LABELS), make_model(), tmp_path / "file" / "data")


def test_several_inputs_with_names_of_any_language_are_kept_each_in_its_own_dtype(tmp_path: Path, make_model) -> None:
    model = make_model(**{"größe": ("int32", "N", 2), "маска": ("bool", "N")})
    source = {"größe": np.arange(120).reshape(60, 2), "маска": np.arange(60) % 2 == 0, "labels": np.arange(60) % 10}
    task = open_task(source, model, tmp_path)
    split = task.split("certify")
    feed, kept = feeds(task, split, slice(None)), np.load(split.rows.path)
    assert {name: array.dtype.name for name, array in feed.items()} == {"größe": "int32", "маска": "bool"}
    np.testing.assert_array_equal(feed["größe"][:, 0], 2 * kept)
    np.testing.assert_array_equal(feed["маска"], kept % 2 == 0)
    assert loads(Task, dumps(task)) == task


def test_items_without_a_number_are_kept_and_cast(tmp_path: Path, make_model) -> None:
    task = open_task((np.zeros((60, 0), np.int64), LABELS[:60]), make_model(x=("int32", "N", "T")), tmp_path)
    assert next(batches(task, task.split("certify"), 9))["x"].shape == (9, 0)


def test_the_same_items_in_another_order_are_another_task_of_the_same_size(tmp_path: Path, make_model) -> None:
    first, second = (open_task((INPUTS[::step], LABELS[::step]), make_model(), tmp_path) for step in (1, -1))
    assert first.digest != second.digest
    assert rows(first) == rows(second)


def test_a_cost_in_money_is_not_planned_like_a_share(tmp_path: Path, make_model, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_money.py").write_text("def money(labels, outputs):\n    return 1.0\n")
    source = (INPUTS[:100], LABELS[:100] % 2)
    share = open_task(source, make_model(width=2), tmp_path, DataRequest(max_drop=0.01))
    assert any("can't prove that at most 1 pt is lost" in note for note in share.notes)
    for request in (DataRequest(costs=(10.0, 1.0), max_drop=2.5), DataRequest(metric="own_money:money", max_drop=2.5)):
        assert not any(
            "can't prove" in note for note in open_task(source, make_model(width=2), tmp_path, request).notes
        )


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            DataRequest(positive="spam"),
            "--positive: that is for two classes, and this task is classification",
        ),
        (DataRequest(threshold=0.4, costs=(1.0, 1.0)), "--threshold, --cost: that is for two classes"),
    ],
)
def test_what_is_for_two_classes_is_refused_for_ten(tmp_path: Path, make_model, request_, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_task((INPUTS, LABELS), make_model(), tmp_path, request_)


def test_groups_stay_whole_and_keep_their_numbers_on_disk(tmp_path: Path, make_model) -> None:
    speakers = np.array([f"speaker {number % 45}" for number in range(900)])
    request = DataRequest(groups="speaker")
    task = open_task({"x": INPUTS, "labels": LABELS, "speaker": speakers}, make_model(), tmp_path, request)
    seen = [set(np.load(split.groups.path).tolist()) for split in task.splits]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 45
    for split in task.splits:
        names = speakers[np.load(split.rows.path)]
        assert len(set(zip(names.tolist(), np.load(split.groups.path).tolist(), strict=True))) == len(
            set(names.tolist())
        )


def test_a_model_without_inputs_is_refused(tmp_path: Path, make_model) -> None:
    from dataclasses import replace

    model = make_model()
    with pytest.raises(BadInput, match="takes no data; check its inputs with trimtab inspect"):
        open_task((INPUTS, LABELS), replace(model, signature=replace(model.signature, inputs=())), tmp_path)


def test_one_input_too_few_is_said_with_the_names_wanted(tmp_path: Path, make_model) -> None:
    np.save(tmp_path / "lone.npy", INPUTS)
    model = make_model(a=("float32", "N", 4), b=("float32", "N", 4))
    with pytest.raises(BadInput, match=r"takes a, b, and the data has one input; give an \.npz with one array each"):
        open_task(tmp_path / "lone.npy", model, tmp_path / "kept")


def test_a_sample_holds_items_of_the_split_with_their_labels_groups_and_rows(tmp_path: Path, make_model) -> None:
    task = open_task((INPUTS, LABELS), make_model(), tmp_path)
    whole = task.split("certify")
    some = sample(whole, 100, 0, tmp_path)
    chosen = np.load(some.rows.path)
    assert (some.name, len(some), len(set(chosen))) == ("certify", 100, 100)
    assert set(chosen) <= set(np.load(whole.rows.path))
    np.testing.assert_array_equal(np.load(some.inputs[0].path), INPUTS[chosen])
    np.testing.assert_array_equal(labels(some), LABELS[chosen])


def test_a_sample_is_the_same_under_the_same_seed_and_another_under_another(tmp_path: Path, make_model) -> None:
    whole = open_task((INPUTS, LABELS), make_model(), tmp_path).split("certify")
    assert sample(whole, 50, 1, tmp_path) == sample(whole, 50, 1, tmp_path)
    assert sample(whole, 50, 1, tmp_path).digest != sample(whole, 50, 2, tmp_path).digest
    assert sample(whole, 50, 1, tmp_path).digest != whole.digest


def test_a_second_source_is_trained_on_and_an_eighth_of_it_calibrates(tmp_path: Path, make_model) -> None:
    request = DataRequest(train=(INPUTS[:400] + 100, LABELS[:400]))
    task = open_task((INPUTS[400:], LABELS[400:]), make_model(), tmp_path, request)
    assert rows(task) == {"train": 350, "calibrate": 50, "select": 166, "certify": 334}
    for split in task.splits:
        strange = feeds(task, split, slice(None))["x"] > 50
        assert strange.all() if split.name in ("train", "calibrate") else not strange.any()
    alone = open_task((INPUTS[400:], LABELS[400:]), make_model(), tmp_path)
    assert task.digest != alone.digest


def test_class_folders_to_train_on_and_to_judge_have_their_classes_together(tmp_path: Path, make_model) -> None:
    for source, names in {"train": ("ant", "cat"), "val": ("bee", "cat")}.items():
        for shade, name in enumerate(names):
            (tmp_path / source / name).mkdir(parents=True)
            for number in range(8):
                pixels = np.full((4, 4), 16 * number + shade, np.uint8)
                Image.fromarray(pixels).save(tmp_path / source / name / f"{number}.png")
    request = DataRequest(train=tmp_path / "train", preprocess=(Step(technique="scale"),))
    model = make_model(width=3, x=("float32", "N", 4, 4))
    task = open_task(tmp_path / "val", model, tmp_path / "kept", request)
    assert task.classes == ("ant", "bee", "cat")
    assert set(labels(task.split("train")).tolist()) == {0, 2}
    judged = np.concatenate([labels(task.split(name)) for name in ("select", "certify")])
    assert set(judged.tolist()) == {1, 2}
