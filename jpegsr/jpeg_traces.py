"""What the tables and the levels of a picture tell of JPEG compression: its quality, and an earlier compression.

Luma is uint8 `[H, W]`, as decoded. Tables are 8x8 in natural (row by row) order, step sizes from 1.

The search for an earlier compression follows the idea of Bianchi and Piva (IEEE TIFS 7(2), 2012): on the grid that a picture
was once quantised on, its DCT coefficients crowd at the multiples of the steps. Here all 64 positions of the grid and the
standard tables of qualities 5-96 are tried, and each position is held against the other 63 of the same picture.
"""

import dataclasses
import functools

import numpy as np

# ITU-T T.81, Annex K.1, which libjpeg scales by the quality.
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = _CHROMA_CORNER
_TABLES = np.stack([np.array(_LUMA_TABLE), _CHROMA_TABLE])

_QUALITIES = np.arange(5, 97)
# The low frequencies (vertical, horizontal): those that a coarse table leaves other than zero.
_MODES = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2), (0, 3), (3, 0))
_FREQUENCIES = 4
_BINS_PER_LEVEL = 2
_BINS = 1100 * _BINS_PER_LEVEL + 1  # coefficients of 8-bit levels lie within 1024
# Measured: an earlier compression has at least 11 deviations, an excess of 0.10 and 7 modes. A picture without one has at most
# 10 deviations, but for a photo of blinds (22, at an excess of 0.06) and for pixel art and gradients (58, with 4 modes).
_LEAST_DEVIATIONS = 10.0
_LEAST_EXCESS = 0.08
_LEAST_MODES = 6
_LEAST_MODE_DEVIATIONS = 3.0
_LEAST_COEFFICIENTS = 200
_LEAST_SIDE = 48
# A finer first quantisation leaves nothing to be found under a coarser second one.
_LEAST_STEP_RATIO = 1.2
# Twice the quality has half the steps, and multiples of the whole are multiples of the half: prefer the better fit.
_NEAR_BEST = 0.6


@dataclasses.dataclass(frozen=True)
class EarlierJpeg:
    """A JPEG compression before the present file was written.

    Attributes:
      quality: of the standard table that fits best; take it as about right.
      row: where its 8x8 grid begins, 0-7, in rows of the stored picture.
      column: the same in columns. Both 0: on the present grid.
    """

    quality: int
    row: int
    column: int


@functools.lru_cache(maxsize=128)
def standard_tables(quality: int) -> np.ndarray:
    """The baseline tables of libjpeg at a quality of 1-100: int `[2, 8, 8]`, luma and chroma."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.clip((_TABLES * scale + 50) // 100, 1, 255)
    tables.setflags(write=False)
    return tables


def estimate_quality(tables: np.ndarray) -> tuple[int, bool]:
    """The libjpeg quality of tables `[1, 8, 8]` (luma) or `[2, 8, 8]` (luma, chroma), and whether it is exact.

    Other encoders' tables get the quality whose standard tables are as coarse on average, each step as a share of Annex K.
    """
    present = np.minimum(tables, 255)  # without libjpeg's baseline limit, steps go beyond
    base = _TABLES[: len(present)]
    coarseness = np.mean(present / base)
    distances = []
    for quality in range(1, 101):
        standard = standard_tables(quality)[: len(present)]
        if np.array_equal(present, standard):
            return quality, True
        distances.append(abs(np.mean(standard / base) - coarseness))
    return 1 + int(np.argmin(distances)), False


def find_earlier_jpeg(luma: np.ndarray, table: np.ndarray | None = None) -> EarlierJpeg | None:
    """Traces of a JPEG compression before the present file's, or none found.

    Made to be silent in doubt, so that none found means little. Measured with Pillow's encoder on 390 photos of 0.07 to 0.5
    megapixels (Set5, Set14, B100, Urban100, desktop photographs), those with a history of their own set apart: none of 5656
    single compressions at qualities 10-95 is taken for more; found are 99 % of first compressions at 30-75 under one at least
    15 higher on the same grid, and at 30-60 under 80-95 on a shifted one, with the right shift, and the quality within 5; 99 %
    also of pictures decoded from qualities 20-95 and cropped. Of crops of 96x96 pixels it is 71 %. Of first compressions by
    tables whose steps stray from the standard ones by up to 40 % it is 67 %, and the quality is then a guess.

    A first compression as fine as the present one or finer passes unseen, as does one before a resize or filter.

    Args:
      luma: uint8 `[H, W]`; a crop must begin at a multiple of 8 rows and columns of the picture.
      table: luma steps `[8, 8]` of the JPEG file it comes from; none for other files, for which the present grid is one of
        those to be searched.
    """
    if min(luma.shape) < _LEAST_SIDE:
        return None
    present = np.array([1 if table is None else table[mode] for mode in _MODES], np.float32)
    steps = np.array([[standard_tables(int(quality))[0][mode] for quality in _QUALITIES] for mode in _MODES], np.float32)
    candidates = _usable(steps, present).sum(axis=0) >= _LEAST_MODES
    if not candidates.any():
        return None
    qualities, steps = _QUALITIES[candidates], steps[:, candidates]
    histograms = _coefficient_histograms(luma)
    levels = np.broadcast_to(np.arange(_BINS, dtype=np.float32) / _BINS_PER_LEVEL, (len(_MODES), _BINS))
    evidence = _evidence(histograms, levels, steps, present)
    if table is not None:
        # The present grid has its own lattice: hold it against other positions quantised in the same way.
        requantised = np.rint(levels / present[:, None]) * present[:, None]
        evidence[:, 0] = _evidence(histograms, requantised, steps, present)[:, 0]
    deviations, excess = evidence
    if deviations.max() < _LEAST_DEVIATIONS:
        return None
    position = int(np.argmax(deviations.max(axis=1)))
    near_best = deviations[position] > _NEAR_BEST * deviations[position].max()
    quality = qualities[np.argmax(np.where(near_best, excess[position], 0))]
    return EarlierJpeg(int(quality), *divmod(position, 8))


def _usable(steps: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Which steps `[modes, qualities]` of a first compression can leave traces under the present steps `[modes]`."""
    return (steps >= 2) & (steps >= _LEAST_STEP_RATIO * present[:, None])


def _coefficient_histograms(luma: np.ndarray) -> np.ndarray:
    """How often each absolute DCT coefficient occurs, float32 `[64 grid positions, modes, bins]`."""
    angles = np.pi * (2 * np.arange(8) + 1) * np.arange(_FREQUENCIES)[:, None] / 16
    basis = (0.5 * np.cos(angles)).astype(np.float32)
    basis[0] /= np.sqrt(2)
    picture = luma.astype(np.float32) - 128
    chosen = [vertical * _FREQUENCIES + horizontal for vertical, horizontal in _MODES]
    starts = np.arange(len(_MODES))[:, None] * _BINS
    histograms = np.empty((8, 8, len(_MODES), _BINS), np.float32)
    for row in range(8):
        height = (luma.shape[0] - row) // 8
        bands = np.tensordot(basis * _BINS_PER_LEVEL, picture[row : row + 8 * height].reshape(height, 8, -1), (1, 1))
        for column in range(8):
            width = (luma.shape[1] - column) // 8
            blocks = bands[:, :, column : column + 8 * width].reshape(_FREQUENCIES, height * width, 8)
            coefficients = (basis @ blocks.transpose(0, 2, 1)).reshape(_FREQUENCIES**2, -1)[chosen]
            bins = np.abs(np.rint(coefficients)).astype(np.intp) + starts
            histograms[row, column] = np.bincount(bins.ravel(), minlength=starts.size * _BINS).reshape(-1, _BINS)
    return histograms.reshape(64, len(_MODES), _BINS)


def _evidence(histograms: np.ndarray, levels: np.ndarray, steps: np.ndarray, present: np.ndarray) -> np.ndarray:
    """For each grid position and quality, how far it stands out from the other positions: `[2, 64, qualities]`.

    Each coefficient c votes cos(2 pi c / step): 1 at multiples of the step, 0 on average where nothing was quantised. First
    comes the sum of the votes in standard deviations, 0 where it is not clear, then their mean.
    """
    usable = _usable(steps, present)
    votes = np.empty((len(_MODES), 64, steps.shape[1]), np.float32)
    counts = np.empty_like(votes)
    for mode in range(len(_MODES)):
        occupied = np.flatnonzero(histograms[:, mode].any(axis=0))
        level = levels[mode, occupied, None]
        counted = (level > 0.5 * steps[mode]) & usable[mode]
        ballots = np.where(counted, np.cos(2 * np.pi * level / steps[mode]), 0)
        votes[mode] = histograms[:, mode, occupied] @ ballots.astype(np.float32)
        counts[mode] = histograms[:, mode, occupied] @ counted.astype(np.float32)
    modes = np.count_nonzero(_deviations(votes, counts) > _LEAST_MODE_DEVIATIONS, axis=0)
    votes, counts = votes.sum(axis=0), counts.sum(axis=0)
    shares = votes / np.maximum(counts, 1)
    excess = shares - np.median(shares, axis=0)
    clear = (excess > _LEAST_EXCESS) & (counts > _LEAST_COEFFICIENTS) & (modes >= _LEAST_MODES)
    return np.stack([np.where(clear, _deviations(votes, counts), 0), excess])


def _deviations(votes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of votes `[..., 64, qualities]` against the median position, in units of chance or of the spread if larger."""
    usual = np.median(votes, axis=-2, keepdims=True)
    spread = 1.4826 * np.median(np.abs(votes - usual), axis=-2, keepdims=True)
    chance = np.sqrt(counts.mean(axis=-2, keepdims=True) / 2 + 1)
    return (votes - usual) / np.maximum(spread, chance)
