import concurrent.futures
import dataclasses
import io
import json
import os
import shutil

import keras
import numpy as np
import pytest
import skimage.data
from conftest import run_python
from openvino_telemetry.utils.sender import TelemetrySender
from PIL import Image
from test_models import randomised

import jpegsr
from jpegsr import degradation, images, inference, metrics, model_files, models, photos, runtimes, weights
from jpegsr.cli.main import main
from jpegsr.config import MODEL_PRESETS
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> str:
    """Unlike a barely trained network, random weights show every mistake at a tile's edge."""
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(MODEL_PRESETS["tiny"], scale=3, car_stride=2)
    path = tmp_path_factory.mktemp("model") / "random.keras"
    weights.save(path, randomised(models.build_joint(config)), config, {"name": "random"})
    return str(path)


@pytest.mark.parametrize("max_tile_pixels", [24**2, 37**2, 64**2])
@pytest.mark.parametrize("size", [(96, 131), (33, 16), (1, 7), (131, 97)])
@pytest.mark.parametrize("scale", [1, 3])
def test_tiles_equal_a_single_pass(random_model, photo, size, max_tile_pixels, scale):
    network = runtimes.load(random_model, scale, "tensorflow")
    picture = np.ascontiguousarray(photo[: size[0], : size[1]])

    def run(pixels):
        return network.run(pixels, 0.8)

    tiling = inference.Tiling(scale, network.overlap, network.alignment, max_tile_pixels)
    whole = np.asarray(to_levels(run(to_unit(picture[None]))[0]))
    tiled = inference.apply(run, picture, tiling)
    assert whole.shape == (scale * size[0], scale * size[1], 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # float sums differ in order, not in terms
    assert (whole != tiled).mean() < 1e-3


@pytest.mark.parametrize("size", [(96, 130), (40, 40), (39, 200), (97, 130)])
def test_tiles_of_one_shape_several_at_a_time(random_model, photo, size):
    network = runtimes.load(random_model, 3, "tensorflow")
    picture = np.ascontiguousarray(photo[: size[0], : size[1]])
    shapes = []

    def run(tiles):
        shapes.append(tiles.shape)
        return np.concatenate([network.run(tile[None], 1.0) for tile in tiles])

    fixed = inference.FixedTiles(40, 3)
    tiling = inference.Tiling(3, network.overlap, network.alignment, 39 * 40, fixed)
    whole = np.asarray(to_levels(network.run(to_unit(picture[None]), 1.0)[0]))
    progress = []
    tiled = inference.apply(run, picture, tiling, lambda *numbers: progress.append(numbers))
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert progress[-1] == (sum(shape[0] for shape in shapes),) * 2
    if min(size) >= 40 and all((side - 40) % network.alignment == 0 for side in size):
        assert {shape[1:] for shape in shapes} == {(40, 40, 3)}
        assert max(shape[0] for shape in shapes) == min(3, progress[-1][1])
    else:  # too thin, or off the grid on which this network's tiles start
        assert {shape[0] for shape in shapes} == {1}


@pytest.mark.parametrize("alignment", [1, 2, 4])
@pytest.mark.parametrize("size", [100, 101, 103, 1000, 6001])
def test_cuts_cover_an_axis_with_tiles_of_one_length(size, alignment):
    overlap, max_length = 13, 80
    cuts = inference.cut(size, max_length, overlap, alignment)
    assert cuts.length <= max_length
    assert cuts.borders[0] == 0
    assert cuts.borders[-1] == size
    assert cuts.starts[-1] + cuts.length == size
    for start, first, last in zip(cuts.starts, cuts.borders[:-1], cuts.borders[1:], strict=True):
        assert start % alignment == 0
        assert start == 0 or first - start >= overlap
        assert start + cuts.length == size or start + cuts.length - last >= overlap


def test_shipped_base_in_tiles_equals_a_single_pass(photo):
    """The real overlap of the real weights: within one level, on the runtime that users get by default and on TensorFlow."""
    for runtime in ("tensorflow", "openvino"):
        whole = Enhancer("base", 2, runtime, tile_size=2000).enhance(photo)
        enhancer = Enhancer("base", 2, runtime, tile_size=150)
        assert enhancer.num_tiles(*photo.shape[:2]) >= 10
        difference = np.abs(whole.astype(int) - enhancer.enhance(photo))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_progress_counts_tiles_and_may_stop_the_work(photo):
    enhancer = Enhancer("base", runtime="openvino", tile_size=150)
    seen = []
    enhancer.enhance(photo[:100], lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) > 2

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enhancer.enhance(photo, stop)


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_int8_is_close_to_float32(photo, runtime, scale):
    compressed = degradation.jpeg(photo[:120, :160], 30)
    exact = Enhancer("base", scale, "tensorflow").enhance(compressed)
    fast = Enhancer("base", scale, runtime).enhance(compressed)
    assert fast.shape == (120 * scale, 160 * scale, 3)
    assert 40 < metrics.psnr(exact, fast) < 90


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino", "litert"])
def test_strength_goes_from_nothing_to_all(photo, runtime):
    compressed = degradation.jpeg(photo[:64, :64], 10)
    off, half, full = (
        Enhancer("base", 1, runtime, strength=strength).enhance(compressed).astype(int) for strength in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(off, compressed)
    assert np.abs(full - compressed).mean() > 2
    assert np.abs((half - compressed) - (full - compressed) / 2).mean() < 1  # rounding, and what clipping cut off
    enlarged = [Enhancer("base", 2, runtime, strength=strength).enhance(compressed) for strength in (0.0, 1.0)]
    original = degradation.upscale_bicubic(photo[:64, :64], 2)
    assert metrics.psnr(original, enlarged[1]) > metrics.psnr(original, enlarged[0]) + 0.5


def test_self_ensemble_turns_back_what_it_turned(photo):
    picture = np.ascontiguousarray(photo[:40, :60])
    tiling = inference.Tiling(1, 4)
    same = inference.apply(inference.self_ensemble(lambda pixels: pixels), picture, tiling)
    np.testing.assert_array_equal(same, picture)
    blank = np.zeros((32, 32, 3), np.uint8)
    ramp = inference.self_ensemble(lambda pixels: pixels + np.linspace(0, 1, 32, dtype=np.float32)[None, None, :, None])
    assert np.unique(inference.apply(ramp, blank, tiling)).tolist() in ([127], [128], [127, 128])


def test_self_ensemble_of_the_shipped_model_is_no_worse(photo):
    original = np.ascontiguousarray(photo[:160, :240])
    compressed = degradation.jpeg(degradation.downscale(original, 2), 20)
    plain = Enhancer("base", runtime="openvino").enhance(compressed)
    averaged = Enhancer("base", runtime="openvino", self_ensemble=True).enhance(compressed)
    assert metrics.psnr(original, averaged) > metrics.psnr(original, plain)


@pytest.mark.parametrize("shape", [(40, 61), (200, 133), (400, 450)])
def test_a_program_for_any_shape_gives_what_one_for_this_shape_gives(photo, shape):
    enhancer = Enhancer("base", 2, "openvino")
    picture = np.resize(photo, (*shape, 3))
    results = [enhancer.enhance(picture) for _ in range(6)]  # the first ones by the former, the last ones by the latter
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_threads_are_not_pinned_to_the_first_cores():
    """Or several processes would share one core and leave the others idle."""
    program = """
import concurrent.futures, contextlib, os, time
import numpy as np
from jpegsr.enhancement import Enhancer
allowed, seen = os.sched_getaffinity(0), set()
enhancer, picture = Enhancer("base", runtime="openvino", num_threads=1), np.zeros((200, 200, 3), np.uint8)
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    result = pool.submit(lambda: [enhancer.enhance(picture) for _ in range(3)])
    while not result.done():
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                seen.add(frozenset(os.sched_getaffinity(int(thread))))
        time.sleep(0.01)
print(seen == {frozenset(allowed)})
"""
    assert run_python("-c", program).stdout.split()[-1] == "True"


def test_tiles_are_larger_than_their_overlap(photo):
    class FarSighted:
        """A network that sees as far as preset `large`; it repeats pixels."""

        scale, overlap, alignment, bytes_per_pixel, tiling = 2, 104, 2, 1e9, None
        calls = 0

        def run(self, pixels, strength):
            self.calls += 1
            return pixels.repeat(2, axis=1).repeat(2, axis=2)

    with pytest.raises(UserError, match="tile_size 200 is below 232"):
        Enhancer(FarSighted(), tile_size=200)
    network = FarSighted()
    Enhancer(network, tile_memory=1).enhance(photo)
    assert network.calls <= 200  # tiles of 128 pixels would be thousands


def test_images_of_floats_are_refused_and_premultiplied_ones_taken(photo):
    enhancer = Enhancer("fast", runtime="openvino")
    with pytest.raises(ValueError, match="mode F"):
        enhancer.enhance(Image.fromarray(photo[:8, :8, 0].astype(np.float32) / 255))
    gray = Image.fromarray(photo[:16, :16, 0])
    gray.putalpha(255)
    assert enhancer.enhance(gray.convert("La")).size == (32, 32)


def test_threads_share_an_enhancer(photo):
    enhancer = Enhancer("base", runtime="openvino", tile_size=128)
    pictures = [np.ascontiguousarray(photo[i * 20 : i * 20 + 90 + i, :200]) for i in range(8)]
    alone = [enhancer.enhance(picture) for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for expected, result in zip(alone, pool.map(enhancer.enhance, pictures), strict=True):
            np.testing.assert_array_equal(expected, result)


def test_no_edge_of_a_transparent_picture_has_a_fringe():
    """A red disc; black, then green, where nothing shows: neither may be seen in the result, over any background."""
    rows, columns = np.mgrid[:80, :80]
    alpha = np.clip((30 - np.hypot(rows - 40, columns - 40)) * 128 + 128, 0, 255).astype(np.uint8)
    results = []
    for hidden in ((0, 0, 0), (0, 255, 0)):
        picture = np.full((80, 80, 4), (200, 30, 30, 0), np.uint8)
        picture[..., 3] = alpha
        picture[alpha == 0, :3] = hidden
        results.append(Enhancer("base", runtime="openvino").enhance(picture).astype(float))
    np.testing.assert_array_equal(results[0], results[1])
    visible = results[0][results[0][..., 3] > 0]
    assert np.abs(visible[:, :3] - (200, 30, 30)).max() < 25
    assert results[0][0, 0, 3] == 0
    assert results[0][80, 80, 3] == 255


def test_pillow_images_and_paths(photo, tmp_path):
    enhancer = Enhancer("base", runtime="openvino")
    small = np.ascontiguousarray(photo[:30, :40])
    array = enhancer.enhance(small)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK"):
        result = enhancer.enhance(Image.fromarray(small).convert(mode))
        assert result.size == (80, 60)
        assert result.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(mode, mode)
    deep = small[..., 0].astype(np.uint16) * 256
    expected = enhancer.enhance(deep)
    for image in (Image.fromarray(deep), Image.fromarray(deep.astype(">u2")), Image.fromarray(deep.astype(np.int32))):
        np.testing.assert_array_equal(np.asarray(enhancer.enhance(image)), expected)
    turned = Image.fromarray(small)
    turned.getexif()[0x0112] = 6
    assert enhancer.enhance(turned).size == (60, 80)
    keyed = Image.fromarray(small)
    keyed.info["transparency"] = tuple(small[0, 0])
    assert enhancer.enhance(keyed).mode == "RGBA"
    inks = Image.fromarray(small).convert("CMYK")
    inks.info["icc_profile"] = b"for inks"
    assert "icc_profile" not in enhancer.enhance(inks).info
    np.testing.assert_array_equal(np.asarray(enhancer.enhance(Image.fromarray(small))), array)
    Image.fromarray(small).save(tmp_path / "small.png")
    np.testing.assert_array_equal(enhancer.enhance(tmp_path / "small.png"), array)
    deep = enhancer.enhance(small.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - array).max() <= 0.51
    assert len(np.unique(deep)) > 1000  # finer than 8 bits
    assert (deep % 257 != 0).mean() > 0.9  # of which every value is a multiple


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
@pytest.mark.parametrize("model", ["base", "fast"])
def test_int8_leaves_the_picture_itself_in_floats(photo, model, runtime):
    deep = Enhancer(model, runtime=runtime).enhance(photo[:30, :40].astype(np.uint16) * 257)
    assert len(np.unique(deep)) > 1000


def test_colourless_pictures_get_no_tint(photo):
    gray = np.repeat(degradation.jpeg(photo[:60, :80, :1], 10), 3, axis=2)
    result = Enhancer("base", runtime="openvino").enhance(gray)
    assert (result[..., :1] == result).all()
    np.testing.assert_array_equal(result[..., 0], Enhancer("base", runtime="openvino").enhance(gray[..., 0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": 1.5}, "strength"),
        ({"tile_size": 20}, "tile_size"),
        ({"runtime": "vulkan"}, "no runtime 'vulkan'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "gpu", "runtime": "tensorflow"}, "finds no GPU"),
        ({"device": "gpu", "runtime": "openvino"}, "finds no device 'gpu'"),
        ({"device": "gpu", "runtime": "litert"}, "cpu alone"),
        ({"scale": 5}, "scale 5"),
        ({"model": "none_such"}, "no model"),
    ],
)
def test_wrong_choices_are_user_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        Enhancer(**arguments)


def test_threads_that_load_models_leave_stderr_open():
    before = os.fstat(2)
    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            assert len(list(pool.map(lambda scale: Enhancer("base", scale, "litert"), (2, 3, 4)))) == 3
    assert os.path.samestat(os.fstat(2), before)


def test_int8_files_must_belong_to_the_weights(random_model, tmp_path):
    with pytest.raises(UserError, match=r"no int8 model for openvino .*`jpegsr quantize"):
        Enhancer(random_model, runtime="openvino")
    assert Enhancer(random_model).network.runtime == "tensorflow"
    for path in model_files.SHIPPED_FOLDER.glob("base_x2.*"):
        shutil.copy(path, tmp_path)
    assert Enhancer(str(tmp_path / "base_x2.keras")).network.runtime == "openvino"
    record = tmp_path / "base_x2.int8.json"
    trained_from = json.loads(record.read_text())["weights_sha256"]
    record.write_text(record.read_text().replace("weights_sha256", "other"))
    with pytest.raises(UserError, match="damaged"):
        Enhancer(str(tmp_path / "base_x2.keras"), runtime="litert")
    record.write_text((model_files.SHIPPED_FOLDER / record.name).read_text().replace(trained_from, "0"))
    with pytest.raises(UserError, match="other weights"):
        Enhancer(str(tmp_path / "base_x2.keras"), runtime="openvino")
    shutil.copy(model_files.SHIPPED_FOLDER / record.name, tmp_path)
    (tmp_path / "base_x2.int8.bin").write_bytes(b"half")
    with pytest.raises(UserError, match=r"int8 model beside .* is damaged"):
        Enhancer(str(tmp_path / "base_x2.keras"), runtime="openvino")


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_shipped_int8_files_lose_little(scale):
    """What `jpegsr quantize` measured for the weights in the package: at most 0.05 dB at quality 10-40."""
    record = json.loads((model_files.SHIPPED_FOLDER / f"base_x{scale}.int8.json").read_text())
    card = model_files.read_card(model_files.find("base", scale))
    assert record["weights_sha256"] == card["sha256"]
    scores = record["validation_psnr"]
    for runtime in ("openvino", "litert"):
        for quality in (10, 20, 30, 40):
            assert scores[runtime][f"quality {quality}"] > scores["tensorflow"][f"quality {quality}"] - 0.05


def test_quantize_makes_files_that_run(tiny_run, photo_folder, tmp_path, photo, capsys, monkeypatch):
    sent, environment = [], {*os.environ}
    monkeypatch.setattr(TelemetrySender, "send", lambda *message: sent.append(message))
    shutil.copytree(tiny_run / "joint", tmp_path / "joint", ignore=shutil.ignore_patterns("checkpoints"))
    flags = [f"--data={photo_folder}", "--holdout_every=2", "--num_pictures=4"]
    assert main(["quantize", f"--model={tmp_path}", *flags]) == 0
    assert "openvino" in capsys.readouterr().out
    compressed = degradation.jpeg(photo[:64, :64], 10)
    exact = Enhancer(str(tmp_path), runtime="tensorflow").enhance(compressed)
    assert main(["quantize", f"--model={tmp_path}", *flags, "--runtimes=openvino"]) == 0  # LiteRT's file stays usable
    for runtime in ("openvino", "litert"):
        assert metrics.psnr(exact, Enhancer(str(tmp_path), runtime=runtime).enhance(compressed)) > 35
    assert not sent
    assert {*os.environ} == environment


def test_weights_of_stage_car_restore_and_do_no_more(tiny_run, photo_folder, tmp_path, photo):
    shutil.copytree(tiny_run / "car", tmp_path / "car", ignore=shutil.ignore_patterns("checkpoints"))
    flags = [f"--data={photo_folder}", "--holdout_every=2", "--num_pictures=4"]
    assert main(["quantize", f"--model={tmp_path}", *flags]) == 0
    with pytest.raises(UserError, match="restores \\(scale 1\\), but does not enlarge"):
        Enhancer(str(tmp_path), runtime="tensorflow")
    compressed = degradation.jpeg(photo[:64, :64], 10)
    restored = Enhancer(str(tmp_path), 1, "tensorflow").enhance(compressed)
    car = weights.load(str(tmp_path), allow_partial=True).model.get_layer("car")
    np.testing.assert_array_equal(restored, np.asarray(to_levels(car(to_unit(compressed[None]))))[0])
    for runtime in ("openvino", "litert"):
        assert metrics.psnr(restored, Enhancer(str(tmp_path), 1, runtime).enhance(compressed)) > 35


def restored_share(content: bytes) -> float:
    """How much of its change a network at scale 1, which takes half of all light away, gets to apply to a file."""
    network = runtimes.Network(lambda pixels, strength: 0.5 * pixels, 1, 8, 1, 100, "tensorflow")
    photo = photos.read(content)
    result = Enhancer(network).enhance_photo(photo)
    return float(2 - 2 * result.pixels.sum() / photo.pixels.sum())


def test_fine_jpegs_are_restored_less_at_their_own_size(photo):
    jpegs = {quality: degradation.encode_jpeg(photo, quality) for quality in (10, 80, 90, 97, 100)}
    shares = {quality: restored_share(content) for quality, content in jpegs.items()}
    assert shares == pytest.approx({10: 1, 80: 1, 90: 7 / 9, 97: 0, 100: 0}, abs=0.01)
    fine_copy = degradation.encode_jpeg(degradation.jpeg(photo, 40)[3:, 5:], 98)
    assert restored_share(fine_copy) == pytest.approx(1, abs=0.01)
    png = io.BytesIO()
    Image.fromarray(photo).save(png, "PNG")
    assert restored_share(png.getvalue()) == pytest.approx(1, abs=0.01)  # it may have been a JPEG before


def test_pillow_sets_no_limit_of_its_own(photo, monkeypatch):
    large = np.tile(photo, (2000 // photo.shape[0] + 1, 2000 // photo.shape[1] + 1, 1))
    content, bitmap = degradation.encode_jpeg(large, 97), io.BytesIO()
    Image.fromarray(large).save(bitmap, "BMP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", large.size // 3 // 2 - 1)  # an error is raised from twice that on
    assert restored_share(content) == pytest.approx(0, abs=0.01)
    assert np.array_equal(photos.read(bitmap.getvalue()).pixels, large)


def test_a_shipped_model_restores_with_weights_of_its_own():
    assert model_files.find("base", 1).stem == "base_x1"
    assert model_files.find("fast", 1).stem == "fast_x2"


def test_levels_round_and_clip():
    pixels = np.array([-0.1, 0.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.0, 1.3])
    assert np.asarray(to_levels(pixels)).tolist() == [0, 0, 0, 1, 255, 255, 255]
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_levels(to_unit(levels)), levels)


@pytest.mark.parametrize(
    ("quality", "least_gain", "of"), [(10, 0.6, "rgb"), (30, 0.6, "rgb"), (10, 0.5, "luma"), (0, 0.5, "luma")]
)
def test_shipped_base_beats_bicubic_on_real_photos(quality, least_gain, of):
    gains = []
    for name in ("chelsea", "coffee", "astronaut"):
        original = np.ascontiguousarray(getattr(skimage.data, name)()[:300, :450])
        compressed = degradation.jpeg(degradation.downscale(original, 2), quality)
        pictures = (original, jpegsr.enhance(compressed, scale=2), degradation.upscale_bicubic(compressed, 2))
        original, ours, bicubic = pictures if of == "rgb" else map(metrics.luma, pictures)
        gains.append(metrics.psnr(original, ours) - metrics.psnr(original, bicubic))
    assert np.mean(gains) > least_gain, gains


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8), np.uint8(3)]
)
def test_other_arrays_are_refused(array, tiny_run):
    with pytest.raises(ValueError, match="expected uint8 or uint16"):
        jpegsr.enhance(array, model=str(tiny_run))


def test_a_model_in_training_is_loaded_anew(tiny_run, photo, tmp_path):
    """The same path stands for other weights once the file has changed."""
    picture = np.ascontiguousarray(photo[:24, :24])
    trained = weights.load(str(tiny_run))
    path = tmp_path / "model.keras"
    weights.save(path, trained.model, trained.config, {"name": "first"})
    first = jpegsr.enhance(picture, model=str(path))
    weights.save(path, randomised(models.build_joint(trained.config)), trained.config, {"name": "second"})
    assert not np.array_equal(first, jpegsr.enhance(picture, model=str(path)))


@pytest.mark.parametrize(("name", "size"), [("wide.jpg", 70000), ("wide.webp", 20000), ("folder.png", 8)])
def test_what_a_format_cannot_hold_is_a_user_error(name, size, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        images.write_image(tmp_path / name, np.zeros((4, size, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_written_pictures_are_read_back_unchanged(suffix, photo, tmp_path):
    images.write_image(tmp_path / f"cat.{suffix}", photo)
    np.testing.assert_array_equal(images.read_rgb(tmp_path / f"cat.{suffix}"), photo)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("old")

    def fail():
        with images.written_beside(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_pixel_format_is_read(mode, photo, tmp_path):
    picture = Image.fromarray(photo[:30, :40])
    suffix = "jpg" if mode == "CMYK" else "png"
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / f"picture.{suffix}")
    pixels = images.read_rgb(tmp_path / f"picture.{suffix}")
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(pixels, photo[:30, :40])
    if mode == "I;16":
        np.testing.assert_array_equal(pixels[..., 0], np.asarray(Image.fromarray(photo[:30, :40]).convert("L")))
