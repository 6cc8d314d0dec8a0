"""Photo files of every kind: what is read, what survives, and what is refused. Pillow is the independent witness."""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin

from jpegsr import photos, transparency
from jpegsr.errors import UserError
from jpegsr.photos import Photo

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><note>kept</note></x:xmpmeta>"


@pytest.fixture(scope="module")
def small(photo):
    return np.ascontiguousarray(photo[:60, :80])


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep_png(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG, by hand: Pillow writes none in colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wide_profile() -> bytes:
    """An RGB profile far from sRGB: libvips' own Display P3."""
    image = pyvips.Image.black(8, 8, bands=3).copy(interpretation="srgb").icc_transform("p3", input_profile="srgb")
    return image.get("icc-profile-data")


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_decode_as_pillow_decodes_them(small, subsampling, progressive):
    data = saved(Image.fromarray(small), "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
    data += b"trailing bytes" * 10
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(photos.read(data).pixels.astype(int) - expected).max() <= 1


def test_jpeg_with_restart_markers(small):
    data = saved(Image.fromarray(small), "JPEG", restart_marker_rows=1)
    assert b"\xff\xd0" in data
    np.testing.assert_array_equal(photos.read(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_411_jpeg(small):
    """4:1:1, by the sampling factors of Pillow's own encoder: an old camera's and DV's layout."""
    data = pyvips.Image.new_from_array(small).jpegsave_buffer(Q=90, subsample_mode="on")
    patched = bytearray(data)
    frame = data.index(b"\xff\xc0")
    assert patched[frame + 11] == 0x22
    # The same entropy-coded blocks read as one row of four are another picture, but one of a known size.
    patched[frame + 11] = 0x41
    with Image.open(io.BytesIO(bytes(patched))) as witness:
        assert witness.layer[0][1:3] == (4, 1)
        size = witness.size
    assert photos.read(bytes(patched)).pixels.shape[:2] == size[::-1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_formats_and_gray(small, kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    for mode in ("RGB", "L"):
        data = saved(Image.fromarray(small).convert(mode), kind, **options)
        expected = np.asarray(Image.open(io.BytesIO(data)))
        pixels = photos.read(data).pixels
        assert pixels.shape == (60, 80, 3 if mode == "RGB" or kind == "WEBP" else 1)
        np.testing.assert_array_equal(pixels.squeeze(), expected)


def test_palette_one_bit_and_interlaced_pngs(small):
    image = Image.fromarray(small)
    palette = image.quantize(32)
    np.testing.assert_array_equal(photos.read(saved(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))
    one_bit = image.convert("1")
    np.testing.assert_array_equal(photos.read(saved(one_bit, "PNG")).pixels[..., 0], np.asarray(one_bit.convert("L")))
    interlaced = pyvips.Image.new_from_array(small).pngsave_buffer(interlace=True)
    np.testing.assert_array_equal(photos.read(interlaced).pixels, small)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_in_and_out(small, channels, kind, tmp_path):
    deep = (small[..., :channels].astype(np.uint16) * 257) ^ np.arange(80, dtype=np.uint16)[None, :, None]
    photo = photos.read(deep_png(deep))
    np.testing.assert_array_equal(photo.pixels, deep)
    path = tmp_path / f"deep.{kind}"
    photos.write(path, photo, photo)
    again = photos.read(path)
    assert again.pixels.dtype == np.uint16
    np.testing.assert_array_equal(again.pixels, deep)


def test_sixteen_bits_become_eight_where_the_format_has_no_more(small):
    photo = photos.read(deep_png(small.astype(np.uint16) * 257))
    with Image.open(io.BytesIO(photos.encode(photo, photo, "webp"))) as written:
        np.testing.assert_array_equal(np.asarray(written), small)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(small, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(small), "JPEG", exif=exif, quality=100, subsampling=0)
    photo = photos.read(data)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(photo.pixels, np.asarray(ImageOps.exif_transpose(image)))
    with Image.open(io.BytesIO(photos.encode(photo, photo, "jpeg"))) as written:
        assert written.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_metadata_survives(small, kind):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = 6
    details = exif.get_ifd(0x8769)
    details[0x9003], details[0xA002], details[0xA003] = "2001:02:03 04:05:06", 80, 60
    exif.get_ifd(0x8825)[1] = "N"
    profile = wide_profile()
    data = saved(Image.fromarray(small), "JPEG", exif=exif, xmp=XMP, dpi=(300, 300), icc_profile=profile)
    photo = photos.read(data)
    larger = Photo(photo.pixels.repeat(2, axis=0).repeat(2, axis=1))
    with Image.open(io.BytesIO(photos.encode(larger, photo, kind))) as written:
        assert written.size == (120, 160)
        assert written.info["icc_profile"] == profile
        assert XMP in (written.info.get("xmp") or written.info.get("XML:com.adobe.xmp", "").encode() or written.tag_v2[700])
        if kind != "webp":  # which has no place for it
            assert written.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        if kind != "tiff":  # libvips writes none there
            written_exif = written.getexif()
            details = written_exif.get_ifd(0x8769)
            assert (written_exif[0x010F], written_exif[0x0112]) == ("Maker", 1)
            assert (details[0x9003], details[0xA002], details[0xA003]) == ("2001:02:03 04:05:06", 120, 160)
            assert written_exif.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_thumbnail_xmp_and_resolution_of_a_turned_photo_do_not_contradict_it(small, kind, orientation):
    thumbnail = saved(Image.fromarray(small[:30, :40]), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Behind the first directory a second one, with where the thumbnail is; Pillow writes none itself.
    content = bytearray(exif.tobytes())
    start = len(content) - 6  # offsets count from behind "Exif" and two zeros
    order = "<" if content[6:8] == b"II" else ">"
    struct.pack_into(f"{order}I", content, 6 + 8 + 2 + 12, start)
    entries = struct.pack(f"{order}HHHIIHHII", 2, 0x0201, 4, 1, start + 30, 0x0202, 4, 1, len(thumbnail))
    content += entries + bytes(4) + thumbnail
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><d tiff:Orientation='%d'/></x:xmpmeta>" % orientation
    data = saved(Image.fromarray(small), "JPEG", exif=bytes(content), xmp=xmp, dpi=(100, 200))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(thumbnail)
    photo = photos.read(data)
    with Image.open(io.BytesIO(photos.encode(photo, photo, kind))) as written:
        has_thumbnail = 0x0202 in written.getexif().get_ifd(ExifTags.IFD.IFD1)
        assert has_thumbnail == (orientation == 1)
        written_xmp = written.info.get("xmp") or written.info["XML:com.adobe.xmp"].encode()
        assert b"tiff:Orientation='1'" in written_xmp
        dpi = written.info["dpi"] if kind == "png" else [written.getexif()[tag] for tag in (0x011A, 0x011B)]
        assert dpi == pytest.approx((200, 100) if orientation == 6 else (100, 200), abs=0.1)


def test_an_unknown_resolution_of_a_bmp_is_not_made_one(small):
    data = bytearray(saved(Image.fromarray(small), "BMP"))
    data[38:46] = bytes(8)
    photo = photos.read(bytes(data))
    for kind in ("png", "jpeg", "webp", "tiff"):
        with Image.open(io.BytesIO(photos.encode(photo, photo, kind))) as written:
            assert "exif" not in written.info
            assert written.info.get("dpi", (72, 72)) == pytest.approx((72, 72), abs=0.1)


def test_exif_of_a_tiff_survives(small):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x010F], tags[0x8769] = "Scanner", {0x9003: "2001:02:03 04:05:06"}
    photo = photos.read(saved(Image.fromarray(small), "TIFF", tiffinfo=tags))
    with Image.open(io.BytesIO(photos.encode(photo, photo, "png"))) as written:
        assert written.getexif()[0x010F] == "Scanner"
        assert written.getexif().get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"


def test_colours_outside_srgb_come_back(small):
    """Through sRGB and back, a saturated Display P3 picture is the same, although sRGB cannot hold it."""
    saturated = small.copy()
    saturated[:, :, 0], saturated[:, 40:, 1:] = 255, 0
    profile = wide_profile()
    photo = photos.read(saved(Image.fromarray(saturated), "PNG", icc_profile=profile))
    inside = (slice(5, 55), slice(5, 35))
    as_srgb = ImageCms.profileToProfile(
        Image.fromarray(saturated), ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    assert np.abs(photo.pixels[inside].astype(int) - np.asarray(as_srgb)[inside]).max() <= 3
    assert (photo.pixels != saturated).any()
    with Image.open(io.BytesIO(photos.encode(photo, photo, "png"))) as written:
        assert np.abs(np.asarray(written).astype(int) - saturated).max() <= 1
    larger = Photo(photo.pixels.repeat(2, axis=0).repeat(2, axis=1))
    with Image.open(io.BytesIO(photos.encode(larger, photo, "png"))) as written:
        difference = np.asarray(written).astype(int) - saturated.repeat(2, axis=0).repeat(2, axis=1)
        assert np.abs(difference[10:-10, 10:70]).max() <= 2
        assert np.abs(difference[10:-10, 90:-10]).max() <= 2


def linear_gray_profile() -> bytes:
    """A minimal ICC profile for gray levels that are proportional to light."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    texts = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + bytes(79), b"cprt": b"text\0\0\0\0CC0\0"}
    tags = {**texts, b"wtpt": white, b"kTRC": b"curv\0\0\0\0\0\0\0\0"}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    return header + struct.pack(">iii", 63190, 65536, 54061) + bytes(48) + table + data


def test_gray_with_a_profile_stays_gray(small):
    gray = np.ascontiguousarray(small[..., 0])
    photo = photos.read(saved(Image.fromarray(gray), "PNG", icc_profile=linear_gray_profile()))
    assert photo.pixels.shape == (60, 80, 1)
    assert photo.pixels.mean() > gray.mean() + 20  # linear light looks dark where sRGB is expected
    with Image.open(io.BytesIO(photos.encode(photo, photo, "png"))) as written:
        assert written.mode == "L"
        assert written.info["icc_profile"] == linear_gray_profile()
        assert np.abs(np.asarray(written).astype(int) - gray).max() <= 1


def test_a_profile_for_other_colours_is_left_out(small, caplog):
    photo = photos.read(saved(Image.fromarray(small).convert("L"), "JPEG", icc_profile=wide_profile()))
    assert "profile left out" in caplog.text
    with Image.open(io.BytesIO(photos.encode(photo, photo, "png"))) as written:
        assert (written.mode, "icc_profile" in written.info) == ("L", False)


def test_cmyk_becomes_rgb(small):
    image = Image.fromarray(small)
    photo = photos.read(saved(image.convert("CMYK"), "JPEG", quality=95))
    assert photo.pixels.shape == (60, 80, 3)
    # Inks are duller than light, but what was bright is bright.
    assert np.corrcoef(photo.pixels.mean(axis=2).ravel(), small.mean(axis=2).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_survives(small, kind, mode):
    image = Image.fromarray(small).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1))))
    image = image.convert(mode)
    photo = photos.read(saved(image, "PNG"))
    assert photo.alpha is not None
    with Image.open(io.BytesIO(photos.encode(photo, photo, kind))) as written:
        np.testing.assert_array_equal(np.asarray(written.convert("RGBA"))[..., 3], photo.alpha[..., 0])


def test_transparent_jpeg_lies_on_white(small):
    image = Image.fromarray(small).convert("RGBA")
    image.putalpha(0)
    photo = photos.read(saved(image, "PNG"))
    with Image.open(io.BytesIO(photos.encode(photo, photo, "jpeg"))) as written:
        assert np.asarray(written).min() >= 254


def test_colours_under_transparency_are_those_around():
    pixels = np.zeros((33, 47, 3), np.uint8)  # black where nothing shows
    alpha = np.zeros((33, 47, 1), np.uint8)
    pixels[10:20, 10:20], alpha[10:20, 10:20] = (200, 40, 10), 255
    alpha[12, 10] = 1
    filled = transparency.fill_transparent(pixels, alpha)
    assert (filled == (200, 40, 10)).all()
    invisible = np.zeros_like(alpha)
    assert transparency.fill_transparent(pixels, invisible) is pixels


def test_only_the_first_page_is_read(small, caplog):
    pages = [Image.fromarray(small), Image.fromarray(small[:30, :30])]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert photos.read(data, name="pages.tif").pixels.shape == (60, 80, 3)
    assert "first of its 2 pages" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: b"Dear reader,", "is not a JPEG"),
        (lambda data: data[: len(data) // 2], "cannot read"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 255]) + data[-39:], "cannot read"),
    ],
)
def test_damaged_files_are_one_line_with_the_name(small, change, words, tmp_path):
    path = tmp_path / "damaged.png"
    path.write_bytes(change(saved(Image.fromarray(small), "PNG")))
    with pytest.raises(UserError, match=words) as caught:
        photos.read(path)
    assert "damaged.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bombs_are_refused_before_they_are_decoded(small):
    bomb = saved(Image.new("L", (5000, 5000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(UserError, match="5000x5000 pixels, above --max_pixels=1000000"):
        photos.read(bomb, max_pixels=1_000_000)
    scans = saved(Image.fromarray(small), "JPEG", progressive=True)
    start = scans.rindex(b"\xff\xda")
    with pytest.raises(UserError, match="scans"):
        photos.read(scans[:start] + scans[start:-2] * 300 + b"\xff\xd9")


def test_bytes_after_the_picture_are_no_scans(small):
    trailer = np.random.default_rng(0).integers(0, 256, 2_000_000, np.uint8).tobytes() + b"\xff\xda" * 1000
    assert photos.read(saved(Image.fromarray(small), "JPEG") + trailer).pixels.shape == (60, 80, 3)


def test_bmp_is_checked_first_and_keeps_gray_and_resolution(small):
    data = saved(Image.fromarray(small).convert("1"), "BMP", dpi=(300, 300))
    with pytest.raises(UserError, match="above --max_pixels=4000"):
        photos.read(data, max_pixels=4000)
    photo = photos.read(data)
    assert photo.pixels.shape == (60, 80, 1)
    with Image.open(io.BytesIO(photos.encode(photo, photo, "png"))) as written:
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_resolution_without_exif(small):
    """A known one is kept in every format, an unknown one is not made up, or 72 dpi where there must be one."""
    known = photos.read(saved(Image.fromarray(small), "PNG", dpi=(300, 300)))
    unknown = photos.read(saved(Image.fromarray(small), "PNG"))
    for kind in ("png", "jpeg", "webp", "tiff"):
        with Image.open(io.BytesIO(photos.encode(known, known, kind))) as written:
            dpi = written.getexif().get(0x011A) if kind in ("webp", "jpeg") else written.info["dpi"][0]
            assert dpi == pytest.approx(300, abs=0.1)
        with Image.open(io.BytesIO(photos.encode(unknown, unknown, kind))) as written:
            assert "exif" not in written.info
            assert written.info.get("dpi", (72, 72)) == pytest.approx((72, 72), abs=0.1)


def test_what_jpeg_cannot_hold_is_left_out_with_a_message(small, caplog):
    photo = photos.read(saved(Image.fromarray(small), "WEBP", xmp=XMP.replace(b"kept", b"k" * 100_000)))
    with Image.open(io.BytesIO(photos.encode(photo, photo, "jpeg"))) as written:
        assert "xmp" not in written.info
    assert "xmp-data of 100 KB left out" in caplog.text


def test_formats_go_by_suffix(small, tmp_path):
    photo = Photo(small)
    for suffix, kind in ((".PNG", "PNG"), (".jpeg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")):
        photos.write(tmp_path / f"picture{suffix}", photo, photo)
        with Image.open(tmp_path / f"picture{suffix}") as written:
            assert written.format == kind
            assert written.size == (80, 60)
            if kind == "JPEG":
                assert written.layer[0][1:3] == (1, 1)  # 4:4:4
    with pytest.raises(UserError, match="must end in"):
        photos.write(tmp_path / "picture.gif", photo, photo)
    with pytest.raises(UserError, match="cannot write"):
        photos.write(tmp_path / "wide.webp", Photo(np.zeros((1, 20000, 3), np.uint8)), photo)
    assert len(list(tmp_path.iterdir())) == 4
