from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trimtab.core.errors import BadInput, CertificateBroken, Unsafe
from trimtab.core.files import digest_files
from trimtab.core.machine import machine
from trimtab.core.protocols import Opening
from trimtab.core.values import Certificate, Goal, Ratio, Settings, Step, Task, Variant, Workload, options
from trimtab.data.request import DataRequest
from trimtab.data.task import open_task
from trimtab.formats.onnx import OnnxFormat
from trimtab.meters.judge import judge, reference_labels
from trimtab.meters.predict import predict
from trimtab.runtimes.session import open_session
from trimtab.serving.bundle import bundled_variant, read_manifest, write_bundle
from trimtab.serving.evidence import write_evidence
from trimtab.testing.networks import PERCEPTRON, TOKENS
from trimtab.workbench import verify as subject
from trimtab.workbench.measure import measure
from trimtab.workbench.proof import of_itself
from trimtab.workbench.verify import Check, insist, verify

ITEMS = 800
DATA: dict[str, Any] = PERCEPTRON.inputs(ITEMS, 0)
LABELS = PERCEPTRON.answer(DATA)["scores"].argmax(axis=1)
GOAL = Goal(max_drop=0.03)
ORT = Settings(runtime="onnxruntime", threads=1)


def network(path: Path, noise: float) -> Variant:
    """Write the network that is always right, with noise on the weights of its last layer."""
    proto = PERCEPTRON.graph(0)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            array = numpy_helper.to_array(tensor)
            changed = array + noise * np.random.default_rng(1).normal(size=array.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, "w2"))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return Variant(model=OnnxFormat().open(str(path), Opening(folder=path.parent)), settings=ORT)


@dataclass
class Certified:
    folder: Path
    task: Task
    original: Variant


@pytest.fixture
def certified(tmp_path: Path) -> Callable[..., Certified]:
    """Certify a slightly noisy network the way `optimize` does, and write its bundle."""

    def make(
        data: Any = None,
        request: DataRequest | None = None,
        pair: tuple[Variant, Variant] | None = None,
        **of_task: Any,
    ) -> Certified:
        original, variant = pair or (
            network(tmp_path / "original" / "net.onnx", 0.0),
            network(tmp_path / "variant" / "net.onnx", 0.002),
        )
        given = {**DATA, "labels": LABELS} if data is None else data
        task = replace(open_task(given, original.model, tmp_path / "first", request), **of_task)
        split = task.split("certify")
        assert split is not None
        outputs = []
        for each in (original, variant):
            with open_session(each) as session:
                outputs.append(predict(session, task, split, Workload(batch=64)))
        labels = reference_labels(task, split, outputs[0])
        names = (variant.key, original.key)
        proof = judge(task, split, labels, outputs[0], outputs[1], goal=GOAL, names=names)
        proof = of_itself(proof) if variant == original else proof
        assert proof.proven, "the fixture itself must be sound"
        certificate = Certificate(
            claim="", no_worse=proof, ratios=(), data=split.digest, original=original.key, looks=1, seed=0,
            machine=machine(), command="", time="",
        )  # fmt: skip
        folder = tmp_path / "bundle"
        write_bundle(folder, variant, task, measurement=None, certificate=certificate, machine=machine(), version="1")
        write_evidence(folder, split, outputs[0])
        return Certified(folder, task, original)

    return make


def replaced(folder: Path, noise: float) -> None:
    """Put another model into the bundle and mend its checksums."""
    path = folder / "model" / "net.onnx"
    network(path, noise)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["checksums"] = [["model/net.onnx", digest_files([path])]]
    (folder / "manifest.json").write_text(json.dumps(manifest))


GIVEN = {**DATA, "labels": LABELS}


def test_an_honest_bundle_holds_and_its_numbers_are_found_again(certified, tmp_path):
    made = certified()
    found = verify(made.folder, GIVEN, tmp_path / "again")
    assert (found.holds, found.reason, found.items_missing, found.ratio) == (True, "", 0, None)
    certificate = found.manifest.certificate
    assert certificate is not None
    said = certificate.no_worse
    assert (found.found.items, found.found.better, found.found.worse) == (said.items, said.better, said.worse)
    assert (found.found.difference, found.found.low) == (said.difference, said.low)
    assert insist(found) is found


def test_items_are_recognised_in_data_of_another_order(certified, tmp_path):
    made = certified()
    order = np.random.default_rng(3).permutation(ITEMS)
    shuffled = {**{name: array[order] for name, array in DATA.items()}, "labels": LABELS[order]}
    found = verify(made.folder, shuffled, tmp_path / "again")
    assert found.holds
    assert found.items_missing == 0


def test_a_worse_model_in_its_place_breaks_the_certificate(certified, tmp_path):
    made = certified()
    replaced(made.folder, 3.0)
    found = verify(made.folder, GIVEN, tmp_path / "again")
    assert not found.holds
    assert found.found.difference < -0.03
    with pytest.raises(CertificateBroken, match=r"does not hold here: loses .* pt of accuracy on \d+ items") as raised:
        insist(found)
    assert raised.value.exit_code == 1


def test_missing_items_break_it_and_are_counted(certified, tmp_path):
    made = certified()
    fewer = {**{name: array[:-40] for name, array in DATA.items()}, "labels": LABELS[:-40]}
    found = verify(made.folder, fewer, tmp_path / "again")
    certify = made.task.split("certify")
    assert certify is not None
    gone = int((np.load(certify.rows.path) >= ITEMS - 40).sum())
    assert found.items_missing == gone > 0
    assert not found.holds
    assert (
        found.reason
        == f"{gone} of the {len(certify)} certified items are not in the data given with the labels that they had"
    )


def alone(made: Certified) -> dict[str, Any]:
    """Return the certified items and nothing else."""
    certify = made.task.split("certify")
    assert certify is not None
    rows = np.load(certify.rows.path)
    return {**{name: array[rows] for name, array in DATA.items()}, "labels": LABELS[rows]}


@pytest.mark.parametrize("marked", [True, False])
def test_the_certified_items_alone_are_enough(certified, tmp_path, marked):
    made = certified()
    given = alone(made)
    if marked:
        given["split"] = np.full(len(given["labels"]), "certify")
    found = verify(made.folder, given, tmp_path / "again")
    assert (found.holds, found.items_missing) == (True, 0)
    assert found.found.items == len(given["labels"])


def test_a_handful_of_the_items_is_read_and_the_others_are_missed(certified, tmp_path):
    made = certified()
    given = {name: array[:3] for name, array in alone(made).items()}
    found = verify(made.folder, given, tmp_path / "again")
    assert found.items_missing == len(alone(made)["labels"]) - 3


def test_an_item_with_another_label_is_not_the_one_that_was_certified(certified, tmp_path):
    made = certified()
    certify = made.task.split("certify")
    assert certify is not None
    relabelled = LABELS.copy()
    relabelled[np.load(certify.rows.path)[:7]] += 1
    found = verify(made.folder, {**DATA, "labels": relabelled % 4}, tmp_path / "again")
    assert not found.holds
    assert found.items_missing == 7


def test_other_data_is_refused(certified, tmp_path):
    made = certified()
    other = PERCEPTRON.inputs(ITEMS, 9)
    labels = PERCEPTRON.answer(other)["scores"].argmax(axis=1)
    with pytest.raises(BadInput, match="none of the certified items is in the data given"):
        verify(made.folder, {**other, "labels": labels}, tmp_path / "again")


def test_labels_are_asked_for_when_they_were_used(certified, tmp_path):
    made = certified()
    with pytest.raises(BadInput, match="the certificate is about accuracy and the data has no labels"):
        verify(made.folder, DATA, tmp_path / "again")


def test_labels_in_another_order_of_classes_are_refused(certified, tmp_path):
    made = certified(data={**DATA, "labels": np.array(["ant", "bee", "cat", "dog"])[LABELS]})
    (tmp_path / "classes.txt").write_text("dog\nant\nbee\ncat\n")
    request = DataRequest(labels=tmp_path / "classes.txt")
    given = {**DATA, "labels": np.array(["ant", "bee", "cat", "dog"])[LABELS]}
    with pytest.raises(BadInput, match="give their order with --labels"):
        verify(made.folder, given, tmp_path / "again", Check(request=request))
    assert verify(made.folder, given, tmp_path / "again").holds


def test_a_certificate_of_agreement_holds_with_and_without_labels(certified, tmp_path):
    made = certified(data=DATA)
    assert verify(made.folder, DATA, tmp_path / "again").holds
    found = verify(made.folder, {**DATA, "labels": (LABELS + 1) % 4}, tmp_path / "labelled")
    assert found.holds, "the labels were not what was certified"
    assert found.found.metric == "agreement"


def test_groups_are_judged_as_groups_again(certified, tmp_path):
    grouped = {**GIVEN, "groups": np.arange(ITEMS) // 2}
    made = certified(data=grouped)
    found = verify(made.folder, grouped, tmp_path / "again")
    assert found.manifest.certificate is not None
    assert found.found.groups == found.manifest.certificate.no_worse.groups == found.found.items // 2
    assert found.found.low == found.manifest.certificate.no_worse.low


def test_a_bundle_without_a_certificate_has_nothing_to_verify(certified, tmp_path):
    made = certified()
    manifest = json.loads((made.folder / "manifest.json").read_text())
    (made.folder / "manifest.json").write_text(json.dumps({**manifest, "certificate": None}))
    with pytest.raises(BadInput, match="there is nothing to verify"):
        verify(made.folder, GIVEN, tmp_path / "again")


def test_code_that_the_bundle_names_needs_trust(certified, tmp_path):
    made = certified()
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["task"]["preprocessing"] = [{"technique": "call", "options": [["function", "os:getcwd"]], "seed": 0}]
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Unsafe, match=r"names code to run \(os:getcwd\)"):
        verify(made.folder, GIVEN, tmp_path / "again")


def test_the_preprocessing_of_the_bundle_is_used_again(certified, tmp_path):
    raw = {"x": DATA["x"] * 4, "labels": LABELS}
    steps = (Step(technique="scale", options=options(divisor=4.0)),)
    made = certified(data=raw, request=DataRequest(preprocess=steps))
    assert verify(made.folder, raw, tmp_path / "again").holds


def texts(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """Return texts with their labels, the longest of them to calibrate on, and the tokenizer of their words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{number}": number for number in range(50)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    given = TOKENS.inputs(ITEMS, 0)
    labels = TOKENS.answer(given)["scores"].argmax(axis=1).tolist()
    lengths = given["mask"].sum(axis=1)
    rows = [
        {"text": " ".join(f"w{number}" for number in ids[:length]), "label": label, "split": split}
        for ids, length, label, split in zip(
            given["ids"], lengths, labels, ["calibrate"] * 100 + ["select"] * 200 + ["certify"] * 500, strict=True
        )
    ]
    rows[0]["text"] = "w1 " * 9
    return rows, folder / "tokenizer.json"


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_recognised_elsewhere_whatever_the_longest_of_them_is(certified, tmp_path):
    rows, tokenizer = texts(tmp_path)
    path = tmp_path / "tokens.onnx"
    path.write_bytes(TOKENS.graph(0).SerializeToString())
    model = OnnxFormat().open(str(path), Opening(folder=tmp_path))
    pair = (Variant(model=model, settings=Settings(runtime="onnxruntime")), Variant(model=model, settings=ORT))
    request = DataRequest(preprocess=tokenizer)
    made = certified(written(rows, tmp_path / "texts.jsonl"), request, pair)
    tokenizer.unlink()
    moved = made.folder.rename(tmp_path / "elsewhere")
    longer = [*rows, {"text": "w2 " * 20, "label": 0, "split": "certify"}]
    for number, given in enumerate((rows, rows[300:], longer)):
        found = verify(moved, written(given, tmp_path / f"{number}.jsonl"), tmp_path / "again")
        assert (found.holds, found.items_missing, found.found.items) == (True, 0, 500)


@pytest.mark.parametrize(("noise", "holds"), [(None, True), (3.0, False)])
def test_the_model_as_given_holds_however_few_the_items_unless_its_answers_lost_too_much(
    certified, tmp_path, noise, holds
):
    original = network(tmp_path / "original" / "net.onnx", 0.0)
    few = {name: array[:80] for name, array in GIVEN.items()}
    made = certified(few, pair=(original, original))
    if noise is not None:
        replaced(made.folder, noise)
    found = verify(made.folder, few, tmp_path / "again")
    assert found.found.items < 99, "with which no drop of 3 pt can be proven"
    assert found.holds == holds
    assert (found.found.method == "the same variant") == holds
    assert ("of accuracy on" in found.reason) == (not holds)


class FakeTiming:
    """A final timing that found the bundle to take 1.4 times as long as the original."""

    def ratio(self, index: int, baseline: int) -> Ratio:
        assert (index, baseline) == (1, 0)
        return Ratio(
            reading="latency", variant="v", baseline="o", value=1.4, low=1.3, high=1.5, level=0.95, margin=0.03,
            verdict="slower", blocks=9, processes=5,
        )  # fmt: skip


def test_with_the_original_the_time_is_compared_too(certified, tmp_path, monkeypatch):
    made = certified()

    def timed(variants: list[Variant], inputs: list[Any], plan: object) -> FakeTiming:
        assert variants[0] == made.original
        assert [feed["x"].shape for feed in inputs] == [(1, 16), (1, 16)]
        return FakeTiming()

    monkeypatch.setattr(subject, "time_finally", timed)
    found = verify(made.folder, GIVEN, tmp_path / "again", Check(original=made.original))
    assert not found.holds
    assert found.found.proven
    assert found.reason == "on this machine it takes 1.40× the time of the original"


def test_it_is_timed_and_answered_as_it_was_certified(certified, tmp_path, monkeypatch):
    made = certified()
    manifest = read_manifest(made.folder)
    variant = bundled_variant(made.folder, manifest)
    measured = measure(variant, made.task, Workload(batch=4), meters=("size",))
    write_bundle(
        made.folder, variant, made.task, measurement=measured, certificate=manifest.certificate, machine=machine(),
        version="1",
    )  # fmt: skip
    shapes = []

    def timed(variants: list[Variant], inputs: list[Any], plan: object) -> FakeTiming:
        shapes.extend(feed["x"].shape for feed in inputs)
        return FakeTiming()

    monkeypatch.setattr(subject, "time_finally", timed)
    found = verify(made.folder, GIVEN, tmp_path / "again", Check(original=made.original))
    assert shapes == [(4, 16), (4, 16)]
    assert found.found.proven


def test_items_that_lie_in_several_splits_are_found_wherever_they_are(certified, tmp_path):
    made = certified()
    certify = made.task.split("certify")
    assert certify is not None
    names = np.array(["train", "calibrate", "select", "certify"])[np.arange(ITEMS) % 4]
    found = verify(made.folder, {**GIVEN, "split": names}, tmp_path / "again")
    assert (found.holds, found.items_missing) == (True, 0)
    assert found.found.items == len(certify)


@pytest.mark.parametrize("kind", ["manifest.json", "evidence.npz"])
def test_a_bundle_that_is_damaged_says_which_file(certified, tmp_path, kind):
    made = certified()
    (made.folder / kind).write_bytes(b"{")
    with pytest.raises(BadInput, match=f"{kind} is damaged"):
        verify(made.folder, GIVEN, tmp_path / "again")
