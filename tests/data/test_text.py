import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput, MissingExtra
from trimtab.core.values import Step, options
from trimtab.data.text import tokenize, tokenize_step, tokenizer_beside

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film"]
TEXTS = ["good film", "bad", "good good bad film"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def bert(make_model, length: int | str = "T"):
    shape = ("int64", "N", length)
    return make_model(input_ids=shape, attention_mask=shape, token_type_ids=shape)


def test_texts_become_padded_ids_with_their_mask(tokenizer: Path, make_model) -> None:
    columns, step, note = tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))
    assert columns["input_ids"].tolist() == [[2, 4, 6, 3, 0, 0], [2, 5, 3, 0, 0, 0], [2, 4, 4, 5, 6, 3]]
    assert columns["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6]
    assert not columns["token_type_ids"].any()
    assert all(array.dtype == np.int64 for array in columns.values())
    assert dict(step.options)["length"] == 512
    assert note is None


def test_longer_texts_are_cut_and_that_is_said(tokenizer: Path, make_model) -> None:
    columns, _, note = tokenize(TEXTS, tokenize_step(tokenizer, 4), bert(make_model))
    assert columns["input_ids"].tolist() == [[2, 4, 6, 3], [2, 5, 3, 0], [2, 4, 4, 3]]
    assert note == "1 of 3 texts are longer than 4 tokens and were cut"


def test_a_fixed_length_of_the_model_is_filled(tokenizer: Path, make_model) -> None:
    columns, step, _ = tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model, 8))
    assert columns["input_ids"].shape == (3, 8)
    assert dict(step.options)["length"] == 8
    with pytest.raises(BadInput, match="takes 8 tokens"):
        tokenize(TEXTS, tokenize_step(tokenizer, 9), bert(make_model, 8))


def test_equal_texts_become_equal_rows_whatever_other_texts_come_with_them(tokenizer: Path, make_model) -> None:
    columns, done, _ = tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))
    for others in ([], ["good good good good good bad film"]):
        again, step, _ = tokenize([TEXTS[0], *others], done, bert(make_model))
        assert {name: rows[0].tolist() for name, rows in again.items()} == {
            name: rows[0].tolist() for name, rows in columns.items()
        }
        assert dict(step.options)["width"] == dict(done.options)["width"] == 6
    with pytest.raises(BadInput, match="takes 5 tokens"):
        tokenize(TEXTS, done, bert(make_model, 5))


def test_the_configuration_beside_the_tokenizer_limits_the_length(tokenizer: Path, make_model) -> None:
    for written, limit in ((5, 5), (1e30, 512)):
        (tokenizer.parent / "tokenizer_config.json").write_text(json.dumps({"model_max_length": written}))
        assert dict(tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))[1].options)["length"] == limit


def test_only_the_inputs_that_the_model_has_are_made(tokenizer: Path, make_model) -> None:
    columns, _, _ = tokenize(TEXTS, tokenize_step(tokenizer), make_model(ids=("int64", "N", "T")))
    assert list(columns) == ["ids"]
    with pytest.raises(BadInput, match="'pixels' is none that a tokenizer gives"):
        tokenize(TEXTS, tokenize_step(tokenizer), make_model(pixels=("int64", "N", "T")))


def test_a_tokenizer_that_is_missing_or_broken_is_named(tmp_path: Path, make_model) -> None:
    pytest.importorskip("tokenizers")
    step = Step(technique="tokenize", options=options(tokenizer=str(tmp_path)))
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        tokenize(TEXTS, step, bert(make_model))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"not a tokenizer\.json"):
        tokenize(TEXTS, step, bert(make_model))


def test_a_tokenizer_inside_or_beside_the_model_is_found(tokenizer: Path, make_model) -> None:
    folder = tokenizer.parent
    assert tokenizer_beside(make_model(path=str(folder))) == tokenizer
    assert tokenizer_beside(make_model(path=str(folder / "model.onnx"))) == tokenizer
    assert tokenizer_beside(make_model(path=str(folder / "elsewhere" / "model.onnx"))) is None


def edited(tokenizer: Path, **changes: object) -> Path:
    """Write what a tokenizer's own file says about padding, truncation or words."""
    held = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps({**held, **changes}))
    return tokenizer


def test_padding_goes_where_the_tokenizer_says(tokenizer: Path, make_model) -> None:
    padding = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None}
    edited(tokenizer, padding={**padding, "pad_id": 6, "pad_type_id": 1, "pad_token": "film"})
    columns, _, _ = tokenize(["good", "bad bad"], tokenize_step(tokenizer), bert(make_model))
    assert columns["input_ids"].tolist() == [[6, 2, 4, 3], [2, 5, 5, 3]]
    assert columns["attention_mask"].tolist() == [[0, 1, 1, 1], [1] * 4]
    assert columns["token_type_ids"].tolist() == [[1, 0, 0, 0], [0] * 4]


def test_the_tokenizers_own_truncation_limits_the_length(tokenizer: Path, make_model) -> None:
    edited(tokenizer, truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0})
    columns, step, note = tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))
    assert columns["input_ids"].tolist() == [[2, 4, 3], [2, 5, 3], [2, 4, 3]]
    assert (dict(step.options)["length"], note) == (3, "2 of 3 texts are longer than 3 tokens and were cut")


def test_empty_and_unknown_texts_are_texts(tokenizer: Path, make_model) -> None:
    columns, _, note = tokenize(["", "größe 日本"], tokenize_step(tokenizer), bert(make_model))
    assert columns["input_ids"].tolist() == [[2, 3, 0, 0], [2, 1, 1, 3]]
    assert note is None


@pytest.mark.parametrize("configuration", ["{", "[]", '{"model_max_length": null}', '{"model_max_length": -1}'])
def test_a_configuration_that_says_nothing_leaves_512_tokens(tokenizer: Path, make_model, configuration: str) -> None:
    (tokenizer.parent / "tokenizer_config.json").write_text(configuration)
    assert dict(tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))[1].options)["length"] == 512


def test_without_the_package_the_error_names_what_to_install(
    tokenizer: Path, make_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"turning text into tokens needs .* pip install 'trimtab\[text\]'"):
        tokenize(TEXTS, tokenize_step(tokenizer), bert(make_model))
