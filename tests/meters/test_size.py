from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimtab.core import plugins
from trimtab.core.values import Model, Reading, Settings, Signature, Task, Variant, Workload
from trimtab.formats.onnx import save
from trimtab.meters.size import SizeMeter, compression


@pytest.fixture
def model(tmp_path):
    weight = numpy_helper.from_array(np.ones((64, 32), np.float32), "w")
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", given, made, [weight])
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx", inline=1000)


def read(model: Model) -> dict[str, Reading]:
    variant = Variant(model=model, settings=Settings(runtime="any"))
    return {reading.name: reading for reading in SizeMeter().read(None, variant, Task(), Workload())}


def test_counts_parameters_and_the_bytes_of_every_file(model):
    found = read(model)
    assert found["parameters"].value == 64 * 32
    data = model.path.with_name("m.onnx.data")
    assert found["bytes"].value == model.path.stat().st_size + data.stat().st_size
    assert (found["bytes"].unit, found["bytes"].direction, found["bytes"].provenance) == ("B", "lower", "counted")


def test_a_format_that_does_not_tell_has_bytes_but_no_parameters(tmp_path, monkeypatch):
    class FakeFormat:
        name = "fake"

    monkeypatch.setattr(plugins, "make", lambda group, name: FakeFormat())
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "a").write_bytes(b"12345")
    (tmp_path / "m" / "deep" / "b").write_bytes(b"123")
    found = read(Model(format="fake", path=tmp_path / "m", digest="0", signature=Signature(inputs=(), outputs=())))
    assert found["bytes"].value == 8
    assert (found["parameters"].value, found["parameters"].provenance) == (None, "unavailable")


def test_compressed_bytes_are_those_of_a_zip_archive(model, tmp_path):
    found = read(model)["bytes_compressed"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in ("m.onnx", "m.onnx.data"):
            archive.write(model.path.with_name(name), name)
        packed = sum(entry.compress_size for entry in archive.infolist())
    assert found.value == pytest.approx(packed, abs=2 * 8)  # a zip archive has no header and no checksum of zlib's
    assert found.value < read(model)["bytes"].value / 10
    assert (found.unit, found.direction) == ("B", "lower")


def readings(parameters: float | None, size: float | None) -> list[Reading]:
    return [Reading(name="parameters", value=parameters), Reading(name="bytes", value=size)]


def test_compression_is_original_over_compressed():
    parameters, size = compression(readings(1000, 4000), readings(1000, 1000))
    assert (parameters.name, parameters.value) == ("compression_parameters", 1.0)
    assert (size.name, size.value, size.direction) == ("compression_bytes", 4.0, "higher")


@pytest.mark.parametrize("after", [readings(None, None), readings(0, 0), []])
def test_compression_of_the_unknown_is_unavailable_never_zero(after):
    for rate in compression(readings(1000, 4000), after):
        assert (rate.value, rate.provenance) == (None, "unavailable")


def test_a_model_of_one_file_says_so(tmp_path, monkeypatch):
    class FakeFormat:
        name = "fake"

    monkeypatch.setattr(plugins, "make", lambda group, name: FakeFormat())
    (tmp_path / "größe.bin").write_bytes(b"1234567")
    model = Model(format="fake", path=tmp_path / "größe.bin", digest="0", signature=Signature(inputs=(), outputs=()))
    found = read(model)
    assert (found["bytes"].value, found["bytes"].scope) == (7, "on disk, one file")
    assert found["parameters"].scope == "the format fake does not say its parameters"


def test_compression_multiplies_along_a_chain():
    first, second, third = readings(900, 4000), readings(300, 2000), readings(100, 250)
    for direct, one, other in zip(
        compression(first, third), compression(first, second), compression(second, third), strict=True
    ):
        assert direct.value == pytest.approx(one.value * other.value)


def test_sizes_and_macs_are_read_without_the_half_second_that_scipy_takes():
    code = "import sys, trimtab.meters.size, trimtab.meters.compute; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
