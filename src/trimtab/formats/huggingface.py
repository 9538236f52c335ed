"""Hugging Face model folders: `config.json` and safetensors weights, read from disk only; no code from the folder runs.

Text models take input_ids, attention_mask and (where the configuration has token types) token_type_ids, image models
pixel_values. A head for classification answers with `logits`. A folder in the layout of sentence-transformers
(`modules.json` and a pooling configuration) answers with `sentence_embedding`, any other with `last_hidden_state`.
Weights in half precision are widened to float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.errors import BadInput, MissingExtra, Unsafe
from trimtab.core.files import digest_files, disk_errors, inside, make_folder, whole_folder
from trimtab.core.protocols import Opening
from trimtab.core.values import Contents, Model, TensorSpec, Work, Workload
from trimtab.formats import torch_macs
from trimtab.formats.states import with_states
from trimtab.formats.torch_tracing import BATCH, FOREIGN_ERRORS, describe, first_line, import_torch, quiet

_HEADS = {
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "logits"),
    "ForImageClassification": ("AutoModelForImageClassification", "logits"),
}

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")


class HuggingFaceFormat:
    """Folders written by `save_pretrained`."""

    name = "huggingface"
    reads = ("states",)

    def claims(self, source: str) -> bool:
        """Claim folders with a config.json that names a model type."""
        config = Path(source) / "config.json"
        return config.is_file() and b'"model_type"' in config.read_bytes()[: 1 << 20]

    def open(self, source: str, opening: Opening) -> Model:
        """Check the folder, find out the shapes of the answers, and return it as a model.

        Raises:
            Unsafe: The weights are pickles, or the model needs code from the folder.
            BadInput: A file is missing, or the weights don't fit the configuration.
        """
        path = Path(source).absolute()
        try:
            module = _built(path)
            signature = describe(module, _inputs(_config(path), path), [module.answer], compute=False)
        except FOREIGN_ERRORS as error:
            raise BadInput(f"the model in {path} can't be opened ({first_line(error)}); fetch it again") from error
        signature = with_states(signature, opening.states)
        return Model(format=self.name, path=path, digest=digest_files(_files(path)), signature=signature)

    def load(self, model: Model) -> Any:
        """Return the model as a module that takes the inputs by name and returns its answer."""
        return _built(model.path)

    def contents(self, model: Model) -> Contents:
        """Return the kinds of layers and the parameters of the network, tied ones once."""
        return torch_macs.contents(model, tuple(_files(model.path)))

    def work(self, model: Model, workload: Workload) -> Work:
        """Return the multiply-accumulates of one call, counted on the graph that torch.export makes."""
        return torch_macs.work(model, workload)


def save_trained(model: Model, module: Any, folder: Path) -> Model:
    """Write a module that was loaded from a folder of this format, with the weights it has now, as another one.

    The tokenizer and what else lies beside the weights is copied.
    """
    with whole_folder(folder) as temporary, disk_errors(folder), quiet():
        for path in sorted(model.path.rglob("*")):
            if path.is_file() and path.suffix not in _WEIGHTS and not path.name.endswith(".index.json"):
                place = temporary / path.relative_to(model.path)
                make_folder(place.parent)
                shutil.copyfile(path, place)
        module.network.save_pretrained(temporary)
    return replace(model, path=folder.absolute(), digest=digest_files(_files(folder)))


def _built(path: Path) -> Any:
    """Return the module of a folder whose files have been checked."""
    _files(path)
    torch = import_torch("opening a Hugging Face model")
    try:
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise MissingExtra("transformers", "text", "opening a Hugging Face model") from error
    config = _config(path)
    kind, output = _head(config)
    transformers.utils.logging.disable_progress_bar()
    try:
        with quiet():
            network, problems = getattr(transformers, kind).from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (*FOREIGN_ERRORS, SafetensorError) as error:
        raise BadInput(f"transformers can't open {path}: {first_line(error)}") from error
    missing = sorted(name for name in problems["missing_keys"] if "pooler" not in name or output == "logits")
    if missing:
        raise BadInput(f"the weights in {path} lack {', '.join(missing[:5])}, which {kind} needs; save the whole model")
    return _wrapper(network.eval(), output, _pooling(path))


def _wrapper(network: Any, output: str, pooling: tuple[str, bool] | None) -> Any:
    torch = import_torch("opening a Hugging Face model")
    base: Any = torch.nn.Module

    class Answering(base):  # type: ignore[misc] # torch is imported here, not at the top
        """Returns one tensor: the logits, the pooled embedding or the last hidden state."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.answer = "sentence_embedding" if pooling and output != "logits" else output

    class Images(Answering):
        """Takes pixels."""

        def forward(self, pixel_values: Any) -> Any:
            """Return the answer."""
            return self.network(pixel_values=pixel_values, return_dict=True)[output]

    class Text(Answering):
        """Takes token ids, their mask and, where the model has them, their types."""

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            """Return the answer."""
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            given = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
            result = self.network(**given, return_dict=True)[output]
            if self.answer != "sentence_embedding" or pooling is None:
                return result
            how, normalize = pooling
            pooled = result[:, 0] if how == "cls" else _mean(result, attention_mask)
            return torch.nn.functional.normalize(pooled, dim=1) if normalize else pooled

    return (Text() if hasattr(network.config, "vocab_size") else Images()).eval()


def _mean(hidden: Any, mask: Any) -> Any:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"can't read {path} ({first_line(error)}); fetch the folder again") from error


def _config(path: Path) -> dict[str, Any]:
    config = _json(path / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise BadInput(f"{path}/config.json names no model_type, so it is not a Hugging Face model")
    if "auto_map" in config:
        raise Unsafe(
            f"{path} needs code from the folder (auto_map in config.json), which is never run; "
            "give a factory of your own: package.module:function --weights model.safetensors"
        )
    return config


def _files(path: Path) -> list[Path]:
    """Return the files that make the model what it is; refuse pickles and weights outside the folder."""
    _config(path)
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        weights = [single]
    elif index.is_file():
        weights = [inside(path, name) for name in sorted(set(_json(index)["weight_map"].values()))]
        if absent := [file.name for file in weights if not file.is_file()]:
            raise BadInput(f"{path} lacks {', '.join(absent)}, which {index.name} names; fetch the folder again")
    elif pickles := sorted(path.glob("*.bin")):
        raise Unsafe(f"{pickles[0]} is a pickle; save the model again with save_pretrained, which writes safetensors")
    else:
        raise BadInput(f"{path} has a config.json but no model.safetensors; fetch the folder again")
    beside = [path / "modules.json", *(file for file in (_pooling_file(path),) if file)]
    return [path / "config.json", *weights, *(file for file in beside if file.is_file())]


def _head(config: dict[str, Any]) -> tuple[str, str]:
    """Return the class of transformers and the name of its answer, by the architecture that was trained."""
    for architecture in config.get("architectures") or ():
        for ending, found in _HEADS.items():
            if architecture.endswith(ending):
                return found
    return "AutoModel", "last_hidden_state"


def _pooling_file(path: Path) -> Path | None:
    if not (path / "modules.json").is_file():
        return None
    places = [part["path"] for part in _json(path / "modules.json") if part["type"].endswith("Pooling")]
    return inside(path, places[0]) / "config.json" if places else None


def _pooling(path: Path) -> tuple[str, bool] | None:
    """Return how sentence-transformers pools ("mean" or "cls") and whether it normalizes, None for other folders."""
    file = _pooling_file(path)
    if file is None:
        return None
    given = _json(file)
    normalize = any(part["type"].endswith("Normalize") for part in _json(path / "modules.json"))
    modes = {key for key, value in given.items() if key.startswith("pooling_mode_") and value is True}
    if modes == {"pooling_mode_mean_tokens"} or given.get("pooling_mode") == "mean":
        return "mean", normalize
    if modes == {"pooling_mode_cls_token"} or given.get("pooling_mode") == "cls":
        return "cls", normalize
    raise BadInput(f"{file} asks for {', '.join(sorted(modes)) or 'nothing'}; known are the mean and the first token")


def _inputs(config: dict[str, Any], path: Path) -> Sequence[TensorSpec]:
    if "vocab_size" in config:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if config.get("type_vocab_size", 0) > 1 else [])]
        return [TensorSpec(name=name, dtype="int64", shape=(BATCH, "sequence")) for name in names]
    size = config.get("image_size") or _prepared_size(path)
    height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    return [
        TensorSpec(name="pixel_values", dtype="float32", shape=(BATCH, config.get("num_channels", 3), height, width))
    ]


def _prepared_size(path: Path) -> Any:
    file = path / "preprocessor_config.json"
    size = _json(file).get("crop_size") or _json(file).get("size") if file.is_file() else None
    if isinstance(size, dict):
        size = [size["height"], size["width"]] if "height" in size else size.get("shortest_edge")
    return size or 224
