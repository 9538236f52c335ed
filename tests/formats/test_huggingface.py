"""Hugging Face folders: opened from disk only, answering as transformers does; no code or pickle of theirs runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import BadInput, Unsafe
from trimtab.core.protocols import Opening
from trimtab.core.values import Workload

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from trimtab.formats import torch_tracing  # noqa: E402 (after the skip)
from trimtab.formats.huggingface import HuggingFaceFormat, _head, _inputs, save_trained  # noqa: E402

TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    network = transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT, num_labels=3)).eval()
    folder = tmp_path_factory.mktemp("classifier")
    network.save_pretrained(folder)
    return folder, network


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.manual_seed(1)
    network = transformers.BertModel(transformers.BertConfig(**TEXT), add_pooling_layer=False).eval()
    folder = tmp_path_factory.mktemp("encoder")
    network.save_pretrained(folder)
    return folder, network


def tokens() -> dict[str, Any]:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def opened(folder: Path) -> Any:
    return HuggingFaceFormat().open(str(folder), Opening(folder=folder / "run"))


def copied(folder: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(folder, target)
    file = target / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return target


def test_a_classifier_answers_with_the_logits_of_transformers(classifier: tuple[Path, Any]) -> None:
    folder, network = classifier
    model = opened(folder)
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.signature.inputs] == [
        (name, "int64", ("batch", "sequence")) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(spec.name, spec.shape) for spec in model.signature.outputs] == [("logits", ("batch", 3))]
    with torch.inference_mode():
        assert torch.equal(HuggingFaceFormat().load(model)(**tokens()), network(**tokens()).logits)


def test_an_encoder_answers_with_its_last_hidden_state(encoder: tuple[Path, Any]) -> None:
    folder, network = encoder
    model = opened(folder)
    assert [(spec.name, spec.shape) for spec in model.signature.outputs] == [
        ("last_hidden_state", ("batch", "sequence", 32))
    ]
    with torch.inference_mode():
        assert torch.equal(HuggingFaceFormat().load(model)(**tokens()), network(**tokens()).last_hidden_state)


def test_opening_computes_nothing(
    classifier: tuple[Path, Any], encoder: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_tracing, "_run", lambda module, given: pytest.fail("the model was run"))
    for folder, _ in (classifier, encoder):
        assert opened(folder).signature.outputs


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_a_sentence_encoder_pools_as_its_folder_says(mode: str, encoder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(encoder[0], tmp_path / "sentences")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    parts = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(parts))
    (folder / "1_Pooling").mkdir()
    given = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(given))
    model = opened(folder)
    assert [(spec.name, spec.shape) for spec in model.signature.outputs] == [("sentence_embedding", ("batch", 32))]
    with torch.inference_mode():
        hidden = encoder[1](**tokens()).last_hidden_state
        found = HuggingFaceFormat().load(model)(**tokens())
    second = hidden[1, :2].mean(0) if mode == "mean_tokens" else hidden[1, 0]
    assert torch.allclose(found[1], second / second.norm(), atol=1e-6)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BadInput, match="pooling_mode_max_tokens"):
        opened(folder)


def test_an_image_classifier_takes_pixels(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=4,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    signature = opened(tmp_path).signature
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("pixel_values", ("batch", 3, 32, 32))]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("logits", ("batch", 4))]


def test_the_digest_follows_the_weights(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy")
    same = copied(folder, tmp_path / "same")
    before = opened(folder).digest
    assert opened(same).digest == before
    network = transformers.BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        network.classifier.bias += 1
    network.save_pretrained(folder)
    assert opened(folder).digest != before


def test_counts_what_it_holds_and_computes(classifier: tuple[Path, Any]) -> None:
    model = opened(classifier[0])
    expected = sum(parameter.numel() for parameter in classifier[1].parameters())
    assert dict(HuggingFaceFormat().contents(model).parameters) == {"float32": expected}
    work = HuggingFaceFormat().work(model, Workload(batch=2, lengths=(("sequence", 8),)))
    layer = 8 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 8 * 8 * 32
    assert work.macs == 2 * (layer + 32 * 32 + 32 * 3)


def test_code_in_the_folder_is_never_run(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy", auto_map={"AutoModel": "evil.Net"}, model_type="evil")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(Unsafe, match="never run"):
        opened(folder)


def test_pickled_weights_are_refused(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Unsafe, match=r"pytorch_model\.bin is a pickle"):
        opened(folder)


def test_shards_outside_the_folder_are_refused(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"classifier.bias": "../outside.safetensors"}}))
    with pytest.raises(BadInput, match="outside the folder"):
        opened(folder)
    index.write_text(json.dumps({"weight_map": {"classifier.bias": "part-1.safetensors"}}))
    with pytest.raises(BadInput, match=r"lacks part-1\.safetensors"):
        opened(folder)


def test_weights_that_lack_a_layer_are_refused_not_made_up(encoder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(encoder[0], tmp_path / "copy", architectures=["BertForSequenceClassification"])
    with pytest.raises(BadInput, match=r"lack .*classifier\.bias"):
        opened(folder)


@pytest.mark.parametrize("damage", ["truncated", "absent", "no json"])
def test_a_damaged_folder_is_one_clear_line(damage: str, classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy")
    weights = folder / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "absent":
        weights.unlink()
    else:
        (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(BadInput) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_claims_only_folders_of_its_kind(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    assert HuggingFaceFormat().claims(str(classifier[0]))
    assert not HuggingFaceFormat().claims(str(tmp_path))
    (tmp_path / "config.json").write_text('{"name": "something else"}')
    assert not HuggingFaceFormat().claims(str(tmp_path))


BROKEN = {
    "a table of shards that is no table": ("model.safetensors.index.json", "[1, 2]", "TypeError|can't"),
    "a table without a map": ("model.safetensors.index.json", '{"metadata": {}}', "weight_map"),
    "modules that are no list": ("modules.json", '{"path": 1}', "can't be opened"),
    "modules without a type": ("modules.json", '[{"path": "1_Pooling"}]', "type"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_beside_the_weights_that_are_not_as_they_should_be(
    case: str, encoder: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = copied(encoder[0], tmp_path / "copy")
    name, content, says = BROKEN[case]
    if name.startswith("model"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(content)
    with pytest.raises(BadInput, match=says) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_pooling_outside_the_folder_is_refused(encoder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(encoder[0], tmp_path / "copy")
    (folder / "modules.json").write_text(json.dumps([{"path": "../1_Pooling", "type": "models.Pooling"}]))
    with pytest.raises(BadInput, match="outside the folder"):
        opened(folder)


def test_the_digest_follows_the_pooling(encoder: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(encoder[0], tmp_path / "copy")
    (folder / "modules.json").write_text(json.dumps([{"path": "pool", "type": "models.Pooling"}]))
    (folder / "pool").mkdir()
    digests = set()
    for mode in ("mean", "cls"):
        (folder / "pool" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
        digests.add(opened(folder).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("config", "prepared", "size"),
    [
        ({"image_size": 48}, None, [48, 48]),
        ({"image_size": [32, 64]}, None, [32, 64]),
        ({"num_channels": 1, "image_size": 16}, None, [16, 16]),
        ({}, {"crop_size": {"height": 40, "width": 56}}, [40, 56]),
        ({}, {"size": {"shortest_edge": 96}}, [96, 96]),
        ({}, {"size": 80}, [80, 80]),
        ({}, None, [224, 224]),
    ],
)
def test_images_have_the_size_of_the_configuration_or_of_the_preprocessor(
    config: dict[str, Any], prepared: dict[str, Any] | None, size: list[int], tmp_path: Path
) -> None:
    if prepared is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    (spec,) = _inputs(config, tmp_path)
    assert (spec.name, spec.shape) == ("pixel_values", ("batch", config.get("num_channels", 3), *size))


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (["BertForSequenceClassification"], ("AutoModelForSequenceClassification", "logits")),
        (["ViTForImageClassification"], ("AutoModelForImageClassification", "logits")),
        (["BertForMaskedLM"], ("AutoModel", "last_hidden_state")),
        (["BertModel", "RobertaForSequenceClassification"], ("AutoModelForSequenceClassification", "logits")),
        ([], ("AutoModel", "last_hidden_state")),
        (None, ("AutoModel", "last_hidden_state")),
    ],
)
def test_the_head_is_the_one_that_was_trained(architectures: list[str] | None, expected: tuple[str, str]) -> None:
    assert _head({"architectures": architectures}) == expected


def test_a_folder_that_only_looks_like_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('["model_type"]')
    assert not HuggingFaceFormat().claims(str(tmp_path / "absent"))
    with pytest.raises(BadInput, match="names no model_type"):
        opened(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-kind"}')
    with pytest.raises(BadInput, match=r"no model\.safetensors; fetch the folder again"):
        opened(tmp_path)


def test_what_was_trained_is_saved_as_a_folder_of_its_kind(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(classifier[0], tmp_path / "copy")
    (folder / "nested").mkdir()
    beside = {"tokenizer.json": "{}", "nested/notes.txt": "mine"}
    left = {"optimizer.pt": "a pickle", "flax_model.msgpack": "", "model.safetensors.index.json": "{}"}
    for name, content in {**beside, **left}.items():
        (folder / name).write_text(content)
    model = opened(folder)
    module = HuggingFaceFormat().load(model)
    with torch.no_grad():
        module.network.classifier.bias += 1
    made = save_trained(model, module, tmp_path / "made")
    assert made == opened(tmp_path / "made")
    assert made.digest != model.digest
    assert made.signature == model.signature
    names = {str(path.relative_to(made.path)) for path in made.path.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.safetensors", *beside}
    with torch.inference_mode():
        found, expected = (HuggingFaceFormat().load(each)(**tokens()) for each in (made, model))
    assert torch.allclose(found, expected + 1, atol=1e-6)
    assert opened(folder).digest == model.digest, "the given folder is left alone"
