"""Exported models: the SavedModel's signatures against `Enhancer`, the other formats against Keras."""

import dataclasses
import hashlib
import io
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from jpegsr import degradation, endpoints, exporting, runtimes, serving, weights
from jpegsr.cli.main import main
from jpegsr.config import MODEL_PRESETS
from jpegsr.endpoints import Endpoints, ServingOptions
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError

OPTIONS = ServingOptions(tile_size=64, tile_batch=2, max_pixels=400_000)


@pytest.fixture(scope="module")
def trained(tiny_run):
    return weights.load(str(tiny_run))


@pytest.fixture(scope="module")
def version_folder(trained, tmp_path_factory) -> pathlib.Path:
    return exporting.export(trained, tmp_path_factory.mktemp("exported"), options=OPTIONS)


@pytest.fixture(scope="module")
def served(version_folder):
    return tf.saved_model.load(str(version_folder))


@pytest.fixture(scope="module")
def large_photo(photo) -> np.ndarray:
    """More than a tile of the graph, in both directions; uint8 `[601, 530, 3]`."""
    whole = np.concatenate([photo, photo[::-1]], axis=0)
    return degradation.jpeg(np.concatenate([whole, whole[:, ::-1]], axis=1)[:601, :530], 20)


def call(served, signature: str, **inputs) -> np.ndarray:
    (output,) = served.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()}).values()
    return output.numpy()


def png(picture: np.ndarray) -> bytes:
    return tf.io.encode_png(picture).numpy()


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return np.abs(first.astype(int) - second.astype(int)).max()


def test_signatures_are_typed_and_named(served):
    def described(signature):
        (inputs,) = signature.structured_input_signature[1].values()
        (outputs,) = signature.structured_outputs.values()
        return {inputs.name: (inputs.dtype, inputs.shape.as_list())}, {outputs.name: (outputs.dtype, outputs.shape.as_list())}

    pictures, strings = (tf.uint8, [None, None, None, 3]), (tf.string, [None])
    assert {name: described(signature) for name, signature in served.signatures.items()} == {
        "serving_default": ({"image_bytes": strings}, {"image_bytes": strings}),
        "upscale": ({"image": pictures}, {"upscaled": pictures}),
        "restore": ({"image": pictures}, {"restored": pictures}),
        "upscale_tiles": ({"tiles": (tf.uint8, [2, 64, 64, 3])}, {"upscaled": (tf.uint8, [2, 128, 128, 3])}),
        "describe": ({"keys": strings}, {"values": strings}),
    }


@pytest.mark.parametrize("part", [np.s_[:], np.s_[:40, :50], np.s_[:1, :1], np.s_[:, :7], np.s_[300:, :]])
@pytest.mark.parametrize(("signature", "scale"), [("upscale", 2), ("restore", 1)])
def test_pictures_of_any_size_come_out_as_enhanced(served, tiny_run, large_photo, signature, scale, part):
    picture = np.ascontiguousarray(large_photo[part])
    expected = Enhancer(str(tiny_run), scale, "tensorflow").enhance(picture)
    assert largest_difference(call(served, signature, image=picture[None])[0], expected) <= 1


def test_a_gray_picture_stays_gray(served, tiny_run, large_photo):
    gray = np.repeat(large_photo[:560, :, :1], 3, axis=2)  # in tiles
    result = call(served, "upscale", image=gray[None])[0]
    assert (result == result[..., :1]).all()
    assert largest_difference(result, Enhancer(str(tiny_run), runtime="tensorflow").enhance(gray)) <= 1
    mixed = call(served, "upscale", image=np.stack([gray[:50, :60], large_photo[:50, :60]]))
    assert largest_difference(mixed[0, :80, :100], result[:80, :100]) <= 1
    assert (mixed[1] != mixed[1, ..., :1]).any()


def test_a_batch_is_its_pictures_one_by_one(served, large_photo):
    pictures = np.stack([large_photo[:400, i * 40 : i * 40 + 250] for i in range(3)])  # together above a tile
    together = call(served, "upscale", image=pictures)
    for picture, result in zip(pictures, together, strict=True):
        assert largest_difference(call(served, "upscale", image=picture[None])[0], result) <= 1


def test_encoded_pictures_of_mixed_sizes(served, tiny_run, large_photo):
    parts = [large_photo[:60, :90], large_photo[:31, :20], np.repeat(large_photo[:40, :50, :1], 3, axis=2), large_photo]
    content = [png(parts[0]), degradation.encode_jpeg(parts[1], 30), png(parts[2][..., :1]), png(parts[3])]
    results = [Image.open(io.BytesIO(result)) for result in call(served, "serving_default", image_bytes=content)]
    assert [result.format for result in results] == ["PNG"] * 4
    assert [result.mode for result in results] == ["RGB", "RGB", "L", "RGB"]
    parts[1] = np.asarray(Image.open(io.BytesIO(content[1])))
    enhancer = Enhancer(str(tiny_run), runtime="tensorflow")
    for part, result in zip(parts, results, strict=True):
        assert largest_difference(np.asarray(result.convert("RGB")), enhancer.enhance(part)) <= 1
    assert call(served, "serving_default", image_bytes=np.zeros(0, object).astype("S")).shape == (0,)


@pytest.mark.parametrize(
    ("signature", "inputs", "reason"),
    [
        ("serving_default", {"image_bytes": [b"no picture at all, though long enough for one"]}, "neither JPEG nor PNG"),
        ("serving_default", {"image_bytes": [png(np.zeros((800, 600, 3), np.uint8))]}, "600x800 pixels, more than the 400000"),
        ("upscale", {"image": np.zeros((2, 500, 500, 3), np.uint8)}, "500000 pixels, more than the 400000"),
        ("upscale", {"image": np.zeros((1, 0, 50, 3), np.uint8)}, "no pixels"),
        ("restore", {"image": np.zeros((0, 50, 50, 3), np.uint8)}, "no pixels"),
    ],
)
def test_bad_requests_are_invalid_arguments(served, signature, inputs, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        call(served, signature, **inputs)


def operations(function) -> set[str]:
    """The kinds of operations of a function and of all that it calls."""
    graph = function.graph.as_graph_def()
    return {node.op for nodes in (graph.node, *(inner.node_def for inner in graph.library.function)) for node in nodes}


def test_tiles_are_compiled_and_free_of_strings_and_python(trained, served, tiny_run, large_photo):
    tiles = np.stack([large_photo[:64, :64], large_photo[200:264, 100:164]])
    expected = [Enhancer(str(tiny_run), runtime="tensorflow").enhance(tile) for tile in tiles]
    assert largest_difference(call(served, "upscale_tiles", tiles=tiles), np.stack(expected)) <= 1
    function = served.signatures["upscale_tiles"]
    graph = function.graph.as_graph_def()
    assert any(inner.attr["_XlaMustCompile"].b for inner in graph.library.function)
    used = operations(function)
    assert {"Conv2D", "DepthToSpace"} <= used
    assert not {name for name in used if "PyFunc" in name or "String" in name or "Assert" in name or "While" in name}
    compiled = tf.function(Endpoints(trained, OPTIONS).upscale_tiles, jit_compile=True, autograph=False)
    program = compiled.experimental_get_compiler_ir(tf.constant(tiles))("hlo")
    assert "convolution" in program
    assert "custom-call" not in program


def test_bfloat16_tiles_and_answers_in_jpeg(trained, tiny_run, large_photo, tmp_path):
    options = dataclasses.replace(OPTIONS, image_format="jpeg", jpeg_quality=97)
    served = tf.saved_model.load(str(exporting.export(trained, tmp_path, precision="bfloat16", options=options)))
    (answer,) = call(served, "serving_default", image_bytes=[png(large_photo[:50, :60])])
    image = Image.open(io.BytesIO(answer))
    assert image.format == "JPEG"
    assert call(served, "describe", keys=["image_format"]) == [b"jpeg"]
    pixels = call(served, "upscale", image=large_photo[None, :50, :60])[0]
    assert 0 < np.abs(np.asarray(image).astype(int) - pixels).mean() < 3
    tile = large_photo[:64, :64]
    difference = np.abs(
        call(served, "upscale_tiles", tiles=np.stack([tile, tile]))[0].astype(int)
        - Enhancer(str(tiny_run), runtime="tensorflow").enhance(tile)
    )
    assert 0 < difference.max() <= 4
    assert difference.mean() < 0.5
    endpoint = Endpoints(trained, ServingOptions(64, 2, "bfloat16")).upscale_tiles
    compiled = tf.function(endpoint, jit_compile=True, autograph=False)
    assert "bf16[" in compiled.experimental_get_compiler_ir(tf.zeros((2, 64, 64, 3), tf.uint8))("hlo")


def test_describe(served, trained):
    keys = ["scale", "overlap", "restore_overlap", "alignment", "name", "sha256", "nonsense", "max_pixels", "image_format"]
    values = [value.decode() for value in call(served, "describe", keys=keys)]
    config = trained.config
    expected = [config.scale, config.receptive_radius, config.car_receptive_radius, config.alignment]
    assert values == [*map(str, expected), trained.name, trained.checksum, "", "400000", "png"]


@pytest.mark.parametrize("warmup_tiles", [False, True])
def test_warmup_requests_run_through_every_signature(served, tmp_path, warmup_tiles):
    path = tmp_path / "requests"
    serving.write_warmup(path, dataclasses.replace(OPTIONS, warmup_tiles=warmup_tiles))
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    requests = [log.predict_log.request for log in logs]
    expected = set(served.signatures) - (set() if warmup_tiles else {"upscale_tiles"})
    assert {request.model_spec.signature_name for request in requests} == expected
    for request in requests:
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert call(served, request.model_spec.signature_name, **inputs).size


def test_record_tells_what_was_written(version_folder, trained):
    record = json.loads((version_folder / "assets.extra" / "jpegsr.json").read_text())
    assert record["model_card"] == trained.card
    assert record["options"]["tile_size"] == 64
    assert "assets.extra/tf_serving_warmup_requests" in record["sha256"]
    assert record["difference_of_upscaled_from_keras_in_levels"]["largest"] <= 1
    assert "saved_model.pb" in record["sha256"]
    for name, checksum in record["sha256"].items():
        assert hashlib.sha256((version_folder / name).read_bytes()).hexdigest() == checksum


@pytest.mark.parametrize("kind", ["litert", "onnx", "openvino"])
def test_other_formats_do_what_keras_does(trained, large_photo, tmp_path, kind):
    folder = exporting.export(trained, tmp_path, kind)
    assert (
        json.loads((folder / "assets.extra" / "jpegsr.json").read_text())["difference_of_upscaled_from_keras_in_levels"][
            "largest"
        ]
        <= 1
    )
    run = exporting.open_exported(folder, kind)
    enhancer = Enhancer(str(trained.path), runtime="tensorflow")
    for part in (large_photo[:50, :70], large_photo[:33, :21]):  # one file for all sizes
        assert largest_difference(run(np.ascontiguousarray(part)), enhancer.enhance(np.ascontiguousarray(part))) <= 1


@pytest.mark.parametrize("kind", ["litert", "openvino"])
def test_int8_is_that_of_the_runtimes(large_photo, tmp_path, kind):
    folder = exporting.export(weights.load("base"), tmp_path, kind, "int8")
    picture = np.ascontiguousarray(large_photo[:100, :120])
    assert largest_difference(exporting.open_exported(folder, kind)(picture), Enhancer("base", 2, kind).enhance(picture)) <= 2


def test_versions_count_up_and_nothing_else_is_left(trained, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    assert exporting.export(trained, tmp_path, "litert").name == "8"
    assert exporting.export(trained, tmp_path, "litert").name == "9"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8", "9", "notes"]


def test_what_differs_from_its_original_is_not_exported(trained, tmp_path, monkeypatch):
    right = exporting.open_exported
    monkeypatch.setattr(exporting, "open_exported", lambda *arguments: lambda picture: right(*arguments)(picture) // 2)
    with pytest.raises(UserError, match="levels off"):
        exporting.export(trained, tmp_path, "litert")
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_never_exported(tiny_run, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("best.keras", "best.json"):
        shutil.copy(tiny_run / "joint" / name, run / name)
    with open(run / "best.keras", "r+b") as file:
        file.seek(2000)
        file.write(b"\0" * 100)
    assert main(["export", f"--model={run}", f"--output_dir={tmp_path / 'out'}"]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--format=onnx", "--precision=int8"], "there is no int8 for format onnx: choose float32"),
        (["--precision=int8"], "choose float32 or bfloat16"),
        (["--format=litert", "--tile_size=64"], "--tile_size is for --format=saved_model alone"),
        (["--jpeg_quality=90"], "--jpeg_quality needs --image_format=jpeg"),
        (["--image_format=jpeg", "--jpeg_quality=101"], "not within 1-100"),
        (["--tile_size=18"], "leaves nothing of a tile"),
        (["--tile_batch=0"], "not above zero"),
        (["--max_pixels=4000"], "below the 4096"),
        (["--tile_batch=2", "--tile_size=20000"], "too many"),
        (["--scale=1"], "`restored`"),
        (["--scale=3"], "enlarges 2 times, not 3"),
        (["--format=openvino", "--precision=int8"], "jpegsr quantize"),
        (["--output_dir=/dev/null/x"], "cannot write to folder"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(tiny_run, tmp_path, capsys, flags, reason):
    assert main(["export", f"--model={tiny_run}", f"--output_dir={tmp_path / 'out'}", *flags]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("package", "kind"), [("tf2onnx", "onnx"), ("openvino", "openvino")])
def test_missing_packages_are_named(trained, tmp_path, monkeypatch, package, kind):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'jpegsr\["):
        exporting.export(trained, tmp_path, kind)


@pytest.mark.parametrize("preset", ["tiny", "base", "paper"])
def test_tiles_within_the_graph_are_bounded(preset):
    config = MODEL_PRESETS[preset]
    side = endpoints.tile_side(config)
    assert 4 * config.receptive_radius <= side <= 512
    assert side**2 * runtimes.bytes_per_pixel(config, "tensorflow") <= 1.2e9
