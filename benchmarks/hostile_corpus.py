"""A seeded corpus of hostile picture files: valid ones of `hostile_seeds`, each broken in one way, and some left whole.

A case is a function of the seed and its index alone, so that any can be made again without the others.
"""

import dataclasses
import re
import struct
import zlib
from collections.abc import Callable, Iterator

import hostile_bombs
import numpy as np
from hostile_seeds import PNG_SIGNATURE, SeedFile, icc_profile, png_chunk, seed_files
from hostile_sizes import with_size

Generator = np.random.Generator
Mutate = Callable[[Generator, SeedFile], bytes]

SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif")
CONTROL = "none"
_SIZES = (0, 1, 40, 4000, 20000, 30000, 65500, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_MAGIC = (
    *(
        b"\xff\xd8\xff\xe0",
        PNG_SIGNATURE,
        b"RIFF\xff\0\0\0WEBPVP8 ",
        b"RIFF\0\1\0\0WEBPVP8L",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
    ),
    *(b"II+\0\x08\0\0\0", b"BM", b"GIF89a", b"GIF87a", b"8BPS\0\1", b"\0\0\1\0\1\0", b"icns", b"\0\0\0\x0cjP  \r\n\x87\n"),
    *(
        b"\xff\x4f\xff\x51",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypheic",
        b"DDS |\0\0\0",
        b"qoif",
        b"\x01\xda\x01\x01",
        b"P6\n40 40\n255\n",
    ),
    *(
        b"\x0a\x05\x01\x08",
        b"SIMPLE  =                    T",
        b"#?RADIANCE\n",
        b"\x76\x2f\x31\x01",
        b"\xd7\xcd\xc6\x9a",
        b"\x1f\x8b\x08\0",
    ),
)
_BILLION_LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
_TEXTS = (
    "This is no picture.\n",
    "\n" * 5000,
    "<!doctype html><title>404</title><p>Not found",
    "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n%%EndComments\n{} loop\n%%EOF\n",
    "%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
    f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY e0 "ha">{_BILLION_LAUGHS}]><svg xmlns="http://www.w3.org/2000/svg">&e11;</svg>',
    '<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><image href="file:///etc/hostname"/></svg>',
    "P3\n30000 30000\n255\n1 2 3\n",
    "#define x_width 60000\n#define x_height 60000\nstatic char x_bits[] = {\n0x00 };\n",
    '/* XPM */\nstatic char *x[] = {"50000 50000 1 1", "a c #000000", "a"};\n',
    "push graphic-context\nviewbox 0 0 640 480\nimage over 0,0 0,0 'label:@/etc/hostname'\npop graphic-context\n",
    "1,2,3\n4,5,6\n" * 50,
    "\x1b]0;title\x07\x1b[2J binary \x00\x01\x02 text",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A file to try; its name is unique in the corpus and ends in `suffix`."""

    name: str
    suffix: str
    mutation: str
    content: bytes


def cases(num_cases: int, seed: int) -> Iterator[Case]:
    """The first cases of a corpus."""
    return (make_case(index, seed) for index in range(num_cases))


def make_case(index: int, seed: int) -> Case:
    """One case of a corpus."""
    mutation, seed_file, generator = draw(index, seed)
    content = MUTATIONS[mutation][2](generator, seed_file)
    suffix = seed_file.suffix
    if mutation in ("mislabelled", "noise", "text_file"):
        suffix = str(generator.choice([other for other in SUFFIXES if other != suffix]))
    return Case(f"{index:05d}-{mutation}-{seed_file.name}{suffix}", suffix, mutation, content)


def draw(index: int, seed: int) -> tuple[str, SeedFile, Generator]:
    """The mutation of a case, the file that it is applied to, and the generator that it draws from."""
    generator = np.random.default_rng([seed, index])
    weights = np.array([weight for weight, _, _ in MUTATIONS.values()])
    mutation = str(generator.choice(list(MUTATIONS), p=weights / weights.sum()))
    formats = MUTATIONS[mutation][1]
    files = [file for file in seed_files() if not formats or file.format in formats]
    return mutation, files[generator.integers(len(files))], generator


def _place(generator: Generator, content: bytes) -> int:
    """Anywhere, but as often as not in the header, where the damage is most varied."""
    end = len(content) if generator.random() < 0.5 else min(200, len(content))
    return int(generator.integers(end))


def _truncated(generator: Generator, file: SeedFile) -> bytes:
    return file.content[: 1 + _place(generator, file.content[:-1])]


def _bit_flips(generator: Generator, file: SeedFile) -> bytes:
    data = bytearray(file.content)
    for _ in range(2 ** generator.integers(5)):
        data[_place(generator, file.content)] ^= 1 << generator.integers(8)
    return bytes(data)


def _overwritten(generator: Generator, file: SeedFile) -> bytes:
    start = _place(generator, file.content)
    run = generator.bytes(int(generator.integers(1, 64)))
    return (file.content[:start] + run + file.content[start + len(run) :])[: len(file.content)]


def _zeroed_tail(generator: Generator, file: SeedFile) -> bytes:
    kept = _place(generator, file.content)
    return file.content[:kept] + bytes(len(file.content) - kept)


def chunks(file: SeedFile) -> list[bytes]:
    """The file cut at the borders of its segments, of arbitrary pieces where the format has none; joined they are the file."""
    content = file.content
    ends = []
    if file.format == "jpeg":
        ends = [marker.start() for marker in re.finditer(rb"\xff[\xc0-\xcf\xd9-\xfe]", content)] + [len(content)]
    elif file.format in ("png", "webp"):
        order, position, around = (">I", 8, 12) if file.format == "png" else ("<I", 12, 8)
        while position < len(content):
            ends.append(position)
            (size,) = struct.unpack_from(order, content, position + (0 if file.format == "png" else 4))
            position += around + size + (size % 2 if file.format == "webp" else 0)
        ends.append(len(content))
    else:
        ends = [len(content) * part // 16 for part in range(1, 17)]
    return [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _chunk_deleted(generator: Generator, file: SeedFile) -> bytes:
    parts = chunks(file)
    del parts[generator.integers(len(parts))]
    return b"".join(parts)


def _chunk_duplicated(generator: Generator, file: SeedFile) -> bytes:
    parts = chunks(file)
    parts[generator.integers(len(parts))] *= int(generator.choice([2, 3, 400]))
    return b"".join(parts)


def _chunk_inserted(generator: Generator, file: SeedFile) -> bytes:
    """A piece of another file, most often of the same format."""
    parts = chunks(file)
    donors = [other for other in seed_files() if other.format == file.format or generator.random() < 0.1]
    foreign = chunks(donors[generator.integers(len(donors))])
    parts.insert(generator.integers(len(parts) + 1), foreign[generator.integers(len(foreign))])
    return b"".join(parts)


def _spliced(generator: Generator, file: SeedFile) -> bytes:
    tail = seed_files()[generator.integers(len(seed_files()))].content
    return file.content[: _place(generator, file.content)] + tail[_place(generator, tail) :]


def _absurd_size(generator: Generator, file: SeedFile) -> bytes:
    width, height = (int(size) for size in generator.choice(_SIZES, 2))
    return with_size(file.content, file.format, width, height)


def _wrong_crc(generator: Generator, file: SeedFile) -> bytes:
    parts = chunks(file)
    chosen = int(generator.integers(1, len(parts)))
    parts[chosen] = parts[chosen][:-4] + generator.bytes(4)
    return b"".join(parts)


def _broken_tables(generator: Generator, file: SeedFile) -> bytes:
    """Huffman or quantisation tables of noise, zeros or ones."""
    parts = chunks(file)
    tables = [index for index, part in enumerate(parts) if part[:2] in (b"\xff\xc4", b"\xff\xdb")]
    chosen = tables[generator.integers(len(tables))]
    head, body = parts[chosen][:5], parts[chosen][5:]
    start = int(generator.integers(len(body)))
    count = len(body) - start
    parts[chosen] = head + body[:start] + (generator.bytes(count), bytes(count), b"\xff" * count)[generator.integers(3)]
    return b"".join(parts)


def _any_directory(generator: Generator) -> bytes:
    """A TIFF directory, the core of EXIF, whose offsets point at itself, at each other or beyond the end."""
    order = str(generator.choice(["<", ">"]))
    numbers = (0, 1, 2, 6, 8, 26, 40, 0xFFFF, 2**31 - 1, 2**32 - 1)
    # Orientation, the four kinds of directories within, maker's note, resolution, strip offsets, text.
    tags = (0x0112, 0x8769, 0x8825, 0xA005, 0x014A, 0x927C, 0x011A, 0x0111, 0x010F)
    count = int(generator.integers(1, 24))
    entries = b"".join(
        struct.pack(order + "HHII", generator.choice(tags), generator.integers(14), *generator.choice(numbers, 2))
        for _ in range(count)
    )
    declared = count if generator.random() < 0.7 else 0xFFFF
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, declared) + entries + struct.pack(order + "I", generator.choice(numbers))


def _with_metadata(file: SeedFile, jpeg_segments: list[bytes], chunk: bytes) -> bytes:
    """Segments after a JPEG's first marker, or a chunk after a PNG's header."""
    parts = chunks(file)
    if file.format == "jpeg":
        added = b"".join(data[:2] + struct.pack(">H", len(data)) + data[2:] for data in jpeg_segments)
        return parts[0] + added + b"".join(parts[1:])
    return b"".join(parts[:2]) + chunk + b"".join(parts[2:])


def _exif_offsets(generator: Generator, file: SeedFile) -> bytes:
    directory = _any_directory(generator)
    return _with_metadata(file, [b"\xff\xe1Exif\0\0" + directory], png_chunk(b"eXIf", directory))


def _tiff_directory(generator: Generator, file: SeedFile) -> bytes:
    """The first directory overwritten in places, or one that is its own successor."""
    if generator.random() < 0.3:
        return _any_directory(generator) + file.content
    order = "<" if file.content[:2] == b"II" else ">"
    is_big = file.content[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), file.content, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), file.content, start)
    end = start + (8 + 20 * count if is_big else 2 + 12 * count)
    data = bytearray(file.content)
    if generator.random() < 0.3:
        data[end : end + 4] = struct.pack(order + "I", start)
    for _ in range(generator.integers(1, 4)):
        place = int(generator.integers(start, end))
        data[place] = generator.choice([0, 1, 0x7F, 0xFF, start & 0xFF, generator.integers(256)])
    return bytes(data)


def _broken_icc(generator: Generator, file: SeedFile) -> bytes:
    profile = icc_profile()
    kinds = [
        b"",
        generator.bytes(500),
        profile[: generator.integers(1, len(profile))],
        profile[:16] + b"CMYKLab " + profile[24:],
        profile[:128] + b"\xff" * 4 + profile[132:],
        struct.pack(">I", 2**32 - 1) + profile[4:],
        profile[:132] + generator.bytes(len(profile) - 132),
        profile[:132] + profile[132:].replace(b"\0\0", b"\xff\xf0"),
    ]
    broken = kinds[generator.integers(len(kinds))]
    number, count = (int(value) for value in generator.choice([0, 1, 2, 255], 2)) if generator.random() < 0.3 else (1, 1)
    chunk = png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(broken))
    return _with_metadata(file, [b"\xff\xe2ICC_PROFILE\0" + bytes([number, count]) + broken] * max(1, count // 8), chunk)


def _noise(generator: Generator, _: SeedFile) -> bytes:
    return _MAGIC[generator.integers(len(_MAGIC))] + generator.bytes(int(2 ** generator.uniform(0, 16)))


def _text_file(generator: Generator, _: SeedFile) -> bytes:
    return _TEXTS[generator.integers(len(_TEXTS))].encode()


# Name: how often, which formats (all if empty), and what it does.
MUTATIONS: dict[str, tuple[int, tuple[str, ...], Mutate]] = {
    CONTROL: (6, (), lambda _, file: file.content),
    "empty": (1, (), lambda *_: b""),
    "truncated": (10, (), _truncated),
    "zeroed_tail": (5, (), _zeroed_tail),
    "bit_flips": (14, (), _bit_flips),
    "overwritten": (10, (), _overwritten),
    "chunk_deleted": (5, (), _chunk_deleted),
    "chunk_duplicated": (4, (), _chunk_duplicated),
    "chunk_inserted": (5, (), _chunk_inserted),
    "spliced": (5, (), _spliced),
    "mislabelled": (4, (), lambda _, file: file.content),
    "absurd_size": (8, (), _absurd_size),
    "wrong_crc": (3, ("png",), _wrong_crc),
    "broken_tables": (6, ("jpeg",), _broken_tables),
    "exif_offsets": (4, ("jpeg", "png"), _exif_offsets),
    "tiff_directory": (5, ("tiff",), _tiff_directory),
    "broken_icc": (4, ("jpeg", "png"), _broken_icc),
    "noise": (4, (), _noise),
    "text_file": (3, (), _text_file),
    "zip_bomb": (3, ("png",), lambda generator, _: hostile_bombs.zip_bomb(generator)),
    "text_bomb": (2, ("png",), lambda generator, file: hostile_bombs.text_bomb(generator, file.content)),
    "scan_bomb": (1, ("jpeg",), lambda generator, _: hostile_bombs.scan_bomb(generator)),
    "frame_bomb": (1, ("gif",), lambda generator, _: hostile_bombs.frame_bomb(generator)),
}
