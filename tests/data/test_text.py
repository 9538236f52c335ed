import json
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.errors import BadInput
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
