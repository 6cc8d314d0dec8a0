import dataclasses
import stat

import keras
import numpy as np
import pytest
import skimage.data
from PIL import Image
from test_models import randomised

import jpegsr
from jpegsr import degradation, enhancement, images, inference, metrics, models, runtimes, weights
from jpegsr.config import MODEL_PRESETS
from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit


@pytest.fixture(scope="module")
def random_model() -> weights.TrainedModel:
    """Unlike a barely trained network, random weights show every mistake at a tile's edge."""
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(MODEL_PRESETS["tiny"], scale=3, car_stride=2)
    return weights.TrainedModel(randomised(models.build_joint(config)), config, {"name": "random"}, None)


@pytest.mark.parametrize("tile_size", [16, 37, 64])
@pytest.mark.parametrize("size", [(96, 131), (33, 16), (1, 7)])
def test_tiles_equal_a_single_pass(random_model, photo, size, tile_size):
    network = runtimes.tensorflow_network(random_model)
    picture = np.ascontiguousarray(photo[: size[0], : size[1]])
    whole = inference.apply(network, picture, random_model.config, 3, tile_size=1000)
    tiled = inference.apply(network, picture, random_model.config, 3, tile_size=tile_size)
    assert whole.shape == (3 * size[0], 3 * size[1], 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # float sums differ in order, not in terms
    assert (whole != tiled).mean() < 1e-3


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


def test_gray_stays_gray(photo, tiny_run, tmp_path):
    gray = np.asarray(Image.fromarray(photo).convert("L"))[:60, :80]
    result = jpegsr.enhance(gray, model=str(tiny_run))
    assert result.shape == (120, 160)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert enhancement.enhance_file(tmp_path / "gray.png", tmp_path / "out.png", model=str(tiny_run)) == (120, 160)
    with Image.open(tmp_path / "out.png") as written:
        assert written.mode == "L"
        np.testing.assert_array_equal(np.asarray(written), result)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(array, tiny_run):
    with pytest.raises(ValueError, match="expected uint8"):
        jpegsr.enhance(array, model=str(tiny_run))


def test_files_are_upright_and_have_ordinary_permissions(photo, tiny_run, tmp_path):
    picture = Image.fromarray(photo[:40, :60])
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    enhancement.enhance_file(tmp_path / "turned.jpg", tmp_path / "out" / "upright.png", model=str(tiny_run))
    with Image.open(tmp_path / "out" / "upright.png") as result:
        assert result.size == (80, 120)
    (tmp_path / "ordinary").touch()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out" / "upright.png", tmp_path / "ordinary")]
    assert modes[0] == modes[1]


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
