import dataclasses
import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
from conftest import run_python
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from jpegsr import degradation, inspection, jpeg_traces, photos
from jpegsr.cli.main import main
from jpegsr.errors import UserError
from jpegsr.jpeg_traces import EarlierJpeg

SAMPLES = pathlib.Path(__file__).parent.parent / "samples"
ORIENTATION = 0x0112
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def inspect_picture(folder: pathlib.Path, picture: Image.Image, kind: str, **options) -> inspection.PhotoReport:
    path = folder / f"photo.{kind.lower()}"
    picture.save(path, kind, **options)
    return inspection.inspect(path)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize(("option", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_quality_is_exact_at_every_setting(option, name, tmp_path):
    for quality in range(1, 101):
        jpeg = inspect_picture(tmp_path, noise(8, 8, 3), "JPEG", quality=quality, subsampling=option).jpeg
        assert jpeg == inspection.JpegReport(quality, True, name, False)


def test_a_tiff_that_pillow_cannot_name_is_looked_at_as_enhance_does(tmp_path):
    """16 bits of gray with alpha, which `enhance` writes itself."""
    levels = np.random.default_rng(0).integers(0, 65536, (30, 50, 2), np.uint16)
    original = photos.Photo(levels[..., :1], levels[..., 1:])
    photos.write(tmp_path / "deep.tif", original, original)
    report = inspection.inspect(tmp_path / "deep.tif")
    assert (report.format, report.width, report.height, report.mode, report.bit_depth) == ("TIFF", 50, 30, "LA", 16)
    assert (report.has_alpha, report.has_exif, report.has_icc_profile) == (True, False, False)
    assert (report.dpi, report.jpeg) == (None, None)
    # A file of a few hundred bytes must not ask for gigabytes.
    huge = (tmp_path / "deep.tif").read_bytes()
    for tag, side in ((256, 50), (257, 30)):  # width and height, each an entry of 12 bytes
        place = next(huge.index(entry) for kind in (3, 4) if (entry := struct.pack("<HHII", tag, kind, 1, side)) in huge)
        huge = huge[:place] + struct.pack("<HHII", tag, 4, 1, 60_000) + huge[place + 12 :]
    (tmp_path / "huge.tif").write_bytes(huge)
    with pytest.raises(UserError, match="60000x60000 pixels"):
        inspection.inspect(tmp_path / "huge.tif")
    (tmp_path / "broken.tif").write_bytes((tmp_path / "deep.tif").read_bytes()[:200])
    with pytest.raises(UserError, match=r"broken\.tif"):
        inspection.inspect(tmp_path / "broken.tif")


def test_an_orientation_in_xmp_alone_turns_nothing(tmp_path):
    """As `enhance` and viewers have it."""
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><d tiff:Orientation='6'/></x:xmpmeta>"
    report = inspect_picture(tmp_path, noise(16, 24, 3), "JPEG", xmp=xmp)
    assert (report.height, report.width) == (16, 24) == photos.read(tmp_path / "photo.jpeg").pixels.shape[:2]


def test_gray_and_progressive(tmp_path):
    jpeg = inspect_picture(tmp_path, noise(8, 8), "JPEG", quality=83, progressive=True).jpeg
    assert jpeg == inspection.JpegReport(83, True, None, True)


@pytest.mark.parametrize(
    ("option", "luma_factors", "name"), [(1, 0x12, "4:4:0"), (2, 0x41, "4:1:1"), (2, 0x14, "1x4, 1x1, 1x1")]
)
def test_rare_subsampling(option, luma_factors, name, tmp_path):
    # 32x32 pixels hold as many units of 16x8 as of 8x16 pixels, so the scan stays valid when the header is changed.
    buffer = io.BytesIO()
    noise(32, 32, 3).save(buffer, "JPEG", subsampling=option)
    content = bytearray(buffer.getvalue())
    content[content.index(b"\xff\xc0") + 11] = luma_factors
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert inspection.inspect(path).jpeg.subsampling == name


def test_tables_of_other_origin_get_the_nearest_quality(tmp_path):
    for quality in (20, 50, 92):
        tables = jpeg_traces.standard_tables(quality).reshape(2, 64).copy()
        tables[0, 5] += 1
        jpeg = inspect_picture(tmp_path, noise(8, 8, 3), "JPEG", qtables=tables.tolist()).jpeg
        assert (jpeg.quality, jpeg.quality_is_exact) == (quality, False)
    luma, chroma = jpeg_traces.standard_tables(80).reshape(2, 64).tolist()
    only_luma = inspect_picture(tmp_path, noise(8, 8, 3), "JPEG", qtables=[luma, luma]).jpeg
    assert not only_luma.quality_is_exact
    assert only_luma.quality > 80
    assert inspect_picture(tmp_path, noise(8, 8, 3), "JPEG", qtables=[luma, chroma]).jpeg.quality_is_exact


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_upright(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    report = inspect_picture(tmp_path, noise(20, 30, 3), kind, exif=exif)
    assert (report.width, report.height) == ((20, 30) if orientation > 4 else (30, 20))
    with Image.open(tmp_path / f"photo.{kind.lower()}") as image:
        assert ImageOps.exif_transpose(image).size == (report.width, report.height)


@pytest.mark.parametrize(
    ("picture", "kind", "mode", "bit_depth", "has_alpha"),
    [
        (noise(9, 7), "PNG", "L", 8, False),
        (noise(9, 7).convert("1"), "PNG", "1", 1, False),
        (noise(9, 7, 2), "PNG", "LA", 8, True),
        (noise(9, 7, 4), "WEBP", "RGBA", 8, True),
        (noise(9, 7, 3).quantize(16), "PNG", "P", 4, False),
        (noise(9, 7, 3).quantize(200), "GIF", "P", 8, False),
        (noise(9, 7, 4).convert("CMYK"), "JPEG", "CMYK", 8, False),
        (Image.fromarray(np.arange(6400, dtype=np.uint16).reshape(80, 80) * 10), "PNG", "I;16", 16, False),
        (Image.fromarray(np.arange(6400, dtype=np.uint16).reshape(80, 80) * 10), "TIFF", "I;16", 16, False),
        (noise(40, 40, 3).convert("LAB"), "TIFF", "LAB", 8, False),
        (noise(40, 40).convert("F"), "TIFF", "F", 32, False),
        (noise(1, 1, 3), "JPEG", "RGB", 8, False),
        (noise(1, 1), "BMP", "L", 8, False),
    ],
)
def test_channels_as_stored(picture, kind, mode, bit_depth, has_alpha, tmp_path):
    report = inspect_picture(tmp_path, picture, kind)
    assert (report.mode, report.bit_depth, report.has_alpha) == (mode, bit_depth, has_alpha)
    assert (report.width, report.height) == picture.size
    assert report.num_bytes == (tmp_path / f"photo.{kind.lower()}").stat().st_size


def test_depth_of_16_bit_rgb_png(tmp_path):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 16, 2, 0, 0, 0))
    rows = png_chunk(b"IDAT", zlib.compress(3 * (b"\0" + bytes(5 * 6))))
    path = tmp_path / "deep.png"
    path.write_bytes(PNG_MAGIC + header + rows + png_chunk(b"IEND", b""))
    report = inspection.inspect(path)
    assert (report.mode, report.bit_depth, report.width, report.height) == ("RGB", 16, 5, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_what_travels_with_the_picture(kind, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:31 12:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif.tobytes(), "icc_profile": profile}
    if kind != "WEBP":
        options["dpi"] = (300, 300)
    if kind in ("JPEG", "WEBP"):
        options["xmp"] = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    report = inspect_picture(tmp_path, noise(8, 8, 3), kind, **options)
    assert report.has_icc_profile
    assert report.icc_description.startswith("sRGB")
    assert report.has_exif
    assert report.has_xmp == ("xmp" in options)
    assert report.dpi == (pytest.approx((300, 300), abs=0.1) if "dpi" in options else None)
    bare = inspect_picture(tmp_path, noise(8, 8, 3), kind)
    assert (bare.has_icc_profile, bare.icc_description, bare.has_exif, bare.has_xmp) == (False, None, False, False)
    broken = inspect_picture(tmp_path, noise(8, 8, 3), kind, icc_profile=b"no profile at all")
    assert broken.has_icc_profile
    assert broken.icc_description is None


def test_mpo_is_a_jpeg_to_people(tmp_path):
    report = inspect_picture(tmp_path, noise(40, 40, 3), "MPO", save_all=True, append_images=[noise(20, 20, 3)])
    assert (report.format, report.width, report.jpeg.quality) == ("JPEG", 40, 75)


@pytest.mark.parametrize("quality", [10, 50, 75, 92])
def test_a_single_compression_is_not_taken_for_two(quality, photo, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(degradation.encode_jpeg(photo, quality))
    assert inspection.inspect(path).earlier_jpeg is None


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (0, 4), (0, 0)])
def test_an_earlier_compression_is_seen(rows, columns, photo, tmp_path):
    once = degradation.jpeg(photo, 45)[rows:, columns:]
    expected = EarlierJpeg(45, -rows % 8, -columns % 8)
    path = tmp_path / "photo.jpg"
    path.write_bytes(degradation.encode_jpeg(once, 85))
    assert inspection.inspect(path).earlier_jpeg == expected
    assert inspect_picture(tmp_path, Image.fromarray(once), "PNG").earlier_jpeg == expected


def test_traces_in_the_middle_of_a_large_picture(photo, tmp_path):
    tall = np.concatenate([photo, photo[::-1]] * 3)
    wide = np.concatenate([tall, tall[:, ::-1], tall], axis=1)[:, :1300]
    report = inspect_picture(tmp_path, Image.fromarray(degradation.jpeg(wide, 50)[2:, 1:]), "JPEG", quality=90)
    assert (report.width, report.height) == (1299, 1798)
    assert report.earlier_jpeg == EarlierJpeg(pytest.approx(50, abs=2), 6, 7)


def test_no_traces_are_seen_where_none_can_be(photo, tmp_path):
    assert inspect_picture(tmp_path, Image.fromarray(photo), "PNG").earlier_jpeg is None
    pixel_art = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    assert inspect_picture(tmp_path, Image.fromarray(pixel_art), "PNG").earlier_jpeg is None
    for options in ({"quality": 80, "keep_rgb": True}, {"quality": 90}):
        once = Image.fromarray(degradation.jpeg(photo, 45))
        picture = once if "keep_rgb" in options else once.convert("CMYK")
        assert inspect_picture(tmp_path, picture, "JPEG", **options).earlier_jpeg is None


def test_refusals_name_the_file(photo, tmp_path):
    content = degradation.encode_jpeg(photo, 50)
    no_tables = content.replace(b"\xff\xdb", b"\xff\xef")
    huge = PNG_MAGIC + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)) + png_chunk(b"IDAT", b"")
    cases = {
        "empty.jpg": (b"", "is empty"),
        "letter.jpg": (b"Dear reader,", "is not a JPEG"),
        "short.jpg": (content[: len(content) // 2], "truncated"),
        "header.jpg": (content[:100], "cannot read"),
        "no_tables.jpg": (no_tables, "cannot read"),
        "huge.png": (huge, "exceeds limit"),
        "scans.jpg": (content[:-2] + 201 * b"\xff\xda" + content[-2:], "scans"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a JPEG"),
    }
    for name, (damaged, words) in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=words) as refusal:
            inspection.inspect(tmp_path / name)
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=r"no file .*nowhere\.jpg"):
        inspection.inspect(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="Is a directory"):
        inspection.inspect(tmp_path)


def test_info_prints_aligned_blocks(capsys):
    assert main(["info", str(SAMPLES / "coffee.jpg"), str(SAMPLES / "cat.jpg")]) == 0
    first, second = (block.splitlines() for block in capsys.readouterr().out.split("\n\n"))
    assert first[0].split(":", 1)[1].strip() == str(SAMPLES / "coffee.jpg")
    facts = dict(line.split(": ", 1) for line in second)
    assert (facts["size"].strip(), facts["quality"].strip(), facts["chroma"].strip()) == ("225x150", "15", "4:2:0")
    values = [len(line) - len(line.split(":", 1)[1].lstrip()) for line in first]
    assert len(set(values)) == 1


def test_info_in_json_goes_on_after_a_bad_photo(tmp_path, capsys):
    (tmp_path / "letter.jpg").write_text("Dear reader,")
    photos = [
        str(tmp_path / "letter.jpg"),
        str(SAMPLES / "cat.jpg"),
        str(tmp_path / "nowhere.jpg"),
        str(SAMPLES / "coffee.jpg"),
    ]
    assert main(["info", "--json", *photos]) == 1
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [entry["photo"] for entry in found] == photos[1::2]
    for entry, path in zip(found, photos[1::2], strict=True):
        report = json.loads(json.dumps(dataclasses.asdict(inspection.inspect(path))))
        assert {key: entry[key] for key in report} == report
    errors = err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("jpegsr: error: ") for line in errors)
    assert ["letter.jpg" in errors[0], "nowhere.jpg" in errors[1]] == [True, True]


def test_info_agrees_with_what_enhance_does(tmp_path, capsys):
    photo, depth = tmp_path / "photo.png", tmp_path / "depth.tif"
    Image.fromarray(np.full((9, 12), 0.5, np.float32)).save(depth)
    assert main(["enhance", str(SAMPLES / "cat.jpg"), "-o", str(photo), "--runtime=openvino"]) == 0
    capsys.readouterr()
    assert main(["info", str(photo), str(depth)]) == 0
    ours, deep = capsys.readouterr().out.split("\n\n")
    assert "72.01 dpi" in ours  # per metre in a PNG; what stands for an unknown resolution
    assert "would refuse it" in deep
    assert "dpi" not in deep
    assert main(["enhance", str(depth), "-o", str(tmp_path / "out.png"), "--runtime=openvino"]) == 1
    assert "8 and 16 bits" in capsys.readouterr().err


def test_xmp_of_a_png_is_seen(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    assert inspect_picture(tmp_path, noise(9, 9, 3), "PNG", pnginfo=text).has_xmp


def test_info_imports_nothing_heavy():
    program = f"""
import sys
from jpegsr.cli.main import main
assert main(["info", {str(SAMPLES / "cat.jpg")!r}]) == 0
heavy = {{"tensorflow", "keras", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    assert "quality:" in run_python("-c", program).stdout
