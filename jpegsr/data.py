"""Training patches: picture files, a TFDS name or prepared shards -> (HR, LR, compressed LR).

A patch is a pure function of the data, the seed and its index: a run resumes by going on at an index, workers share a
stream by taking every n-th index, and the NumPy path (`PatchSampler.patch`) gives the very patches of the TensorFlow path
(`patch_dataset`).
"""

import bisect
import dataclasses
import io
import itertools
import logging
import math
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jpegsr import degradation, images
from jpegsr.config import DataConfig
from jpegsr.errors import DamagedDataError, UserError, first_line

if TYPE_CHECKING:
    import tensorflow as tf

_logger = logging.getLogger(__name__)
# The low-resolution crop that is compressed exceeds the patch by one 4:2:0 coding unit, so that the patch can be cut out
# of it at any offset from the block grid.
MARGIN = 16
TFDS_PREFIX = "tfds:"
PREPARED_PREFIX = "prepared:"


class Patch(NamedTuple):
    """One training example; the letters are those of eq. 2-4. All uint8."""

    hr: np.ndarray  # X, [scale * P, scale * P, 3]
    lr: np.ndarray  # Y, [P, P, 3]
    compressed: np.ndarray  # Z, [P, P, 3]


class PatchDraw(NamedTuple):
    """All random decisions behind one patch, as plain numbers that a TensorFlow graph can take."""

    first_quality: int  # of an earlier JPEG generation; 0: there was none
    first_top: int  # where the second generation's block grid starts within the first one's
    first_left: int
    quality: int  # 0: uncompressed
    chroma_444: bool
    top: int  # where the patch starts within the compressed crop
    left: int


@dataclasses.dataclass
class ImageSource:
    """A list of pictures that can be read in any order.

    Attributes:
      location: what the user called it, for messages.
      names: one per picture.
      read: index -> uint8 `[H, W, 3]`; raises `UserError` for a picture that cannot be decoded.
      held_out: pictures that were kept apart for validation before, of a prepared source.
      holdout_every: the rule by which they were.
      positions: of each picture among all that the source has, also those too small for this training: whether one is held
        out must not depend on the size of the patches. By default there were no others.
    """

    location: str
    names: Sequence[str]
    read: Callable[[int], np.ndarray]
    held_out: "ImageSource | None" = None
    holdout_every: int = 0
    positions: Sequence[int] | None = None

    def split(self, every: int) -> tuple["ImageSource", "ImageSource"]:
        """The pictures to train on, and those to validate on: every N-th one; 0 keeps none for that.

        Raises:
          UserError: a prepared source was split otherwise.
        """
        if self.held_out is None:
            return self.subset(lambda i: not self.is_held_out(i, every)), self.subset(lambda i: self.is_held_out(i, every))
        if every != self.holdout_every:
            raise UserError(f"{self.location!r} was prepared with --holdout_every={self.holdout_every}: train with the same")
        return self, self.held_out

    def subset(self, keep: Callable[[int], bool]) -> "ImageSource":
        """The pictures whose index `keep` accepts."""
        kept = [index for index in range(len(self.names)) if keep(index)]
        return ImageSource(self.location, [self.names[index] for index in kept], lambda i: self.read(kept[i]))

    def is_held_out(self, index: int, every: int) -> bool:
        """Whether the picture with this index is one of every N-th that are kept out of training; 0 keeps none."""
        position = self.positions[index] if self.positions else index
        return every > 0 and position % every == every - 1


def open_source(location: str, min_size: int) -> ImageSource:
    """A folder tree of pictures, `tfds:NAME[:SPLIT]` or `prepared:FOLDER`.

    Files that are no picture, or smaller than `min_size` pixels on a side, are named in a warning and left out; their
    headers are read for that, not their pixels.
    """
    if location.startswith(TFDS_PREFIX):
        return _open_tfds(location)
    if location.startswith(PREPARED_PREFIX):
        from jpegsr.prepared import open_prepared

        return open_prepared(location, min_size)
    paths, positions, num_skipped = [], [], 0
    for position, path in enumerate(images.list_images(location)):
        try:
            size = images.read_size(path)
            if min(size) < min_size:
                raise UserError(f"{str(path)!r} is {size[1]}x{size[0]}, below {min_size} pixels on a side")
            paths.append(path)
            positions.append(position)
        except UserError as error:
            num_skipped += 1
            _logger.warning("skipped: %s", error)
    if num_skipped:
        _logger.warning("skipped %d files in %s", num_skipped, location)
    if not paths:
        raise UserError(
            f"no usable picture in {location!r}: looked for {', '.join(images.SUFFIXES)} files, also in its subfolders, "
            f"of at least {min_size} pixels on a side"
        )
    root = pathlib.Path(location)
    names = [str(path.relative_to(root)) for path in paths]
    return ImageSource(location, names, lambda i: images.read_rgb(paths[i]), positions=positions)


def _open_tfds(location: str) -> ImageSource:
    """`tfds:NAME[:SPLIT]`: the `hr` feature if there is one (div2k), else `image`. The files stay encoded in memory."""
    import tensorflow_datasets as tfds

    name, _, split = location.removeprefix(TFDS_PREFIX).partition(":")
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        feature = next((key for key in ("hr", "image") if key in builder.info.features), None)
        if feature is None:
            raise ValueError(f"it has no feature 'hr' or 'image', only {', '.join(builder.info.features)}")
        # Only this feature is read, and not decoded yet: div2k holds its pictures in both sizes.
        decoders = tfds.decode.PartialDecoding(features={feature}, decoders={feature: tfds.decode.SkipDecoding()})
        examples = builder.as_dataset(split=split or "train", decoders=decoders)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError) as error:
        raise UserError(f"cannot open TFDS dataset {name!r}: {first_line(error)}") from None
    encoded = [example[feature] for example in tfds.as_numpy(examples)]
    names = [f"{name}:{split or 'train'}[{index}]" for index in range(len(encoded))]

    return ImageSource(location, names, lambda index: images.read_rgb(io.BytesIO(encoded[index]), names[index]))


class ImageCache:
    """Decoded pictures of a source, kept up to a number of bytes. Thread-safe.

    Access is uniformly random, so keeping the first ones that fit is as good as any replacement rule. A picture that cannot be
    decoded is passed over; `DamagedDataError` is for the user.
    """

    def __init__(self, source: ImageSource, max_bytes: float, min_size: int):
        self.source = source
        self.min_size = min_size
        self.num_skipped = 0
        self.cached_bytes = 0
        self._max_bytes = max_bytes
        self._images: dict[int, np.ndarray | None] = {}
        self._lock = threading.Lock()

    def _load(self, index: int) -> np.ndarray | None:
        """The picture, or None (with a warning the first time) if it cannot be used."""
        if index in self._images:
            return self._images[index]
        image: np.ndarray | None
        try:
            image = self.source.read(index)
            if min(image.shape[:2]) < self.min_size:
                raise UserError(f"{self.source.names[index]} is below {self.min_size} pixels on a side")
        except DamagedDataError:
            raise
        except UserError as error:
            image, reason = None, error
        with self._lock:
            if index not in self._images:
                if image is None:
                    self.num_skipped += 1
                    _logger.warning("skipped: %s (%d so far)", reason, self.num_skipped)
                    self._images[index] = None
                elif self.cached_bytes + image.nbytes <= self._max_bytes:
                    self.cached_bytes += image.nbytes
                    self._images[index] = image
        return image

    def get(self, index: int) -> tuple[str, np.ndarray]:
        """(name, picture) at an index; in place of an unusable one, the next usable one."""
        count = len(self.source.names)
        for candidate in itertools.chain(range(index, count), range(index)):
            if (image := self._load(candidate)) is not None:
                return self.source.names[candidate], image
        raise UserError(
            f"no usable picture in {self.source.location!r}: none of its {count} can be decoded "
            f"and has at least {self.min_size} pixels on a side"
        )


class PatchSampler:
    """Draws patch number `index` of the endless stream that a `DataConfig` and a scale define."""

    def __init__(self, config: DataConfig, scale: int):
        if not config.sources:
            raise UserError("no training pictures: name a folder or tfds:NAME with --data")
        self.config = config
        self.scale = scale
        self.crop_size = (config.patch_size + MARGIN) * scale
        sources = [open_source(location, self.crop_size) for location, _ in config.sources]
        splits = [source.split(config.holdout_every) for source in sources]
        self.num_pictures = [len(training.names) + len(validation.names) for training, validation in splits]
        sources = [training for training, _ in splits]
        self.validation_sources = [validation for _, validation in splits if validation.names]
        # Without weights, every picture is drawn as often as any other.
        weights = [weight or len(source.names) for source, (_, weight) in zip(sources, config.sources, strict=True)]
        self.failure: UserError | None = None  # met while drawing within a data pipeline, which wraps what is raised in it
        self._thresholds = np.cumsum(weights) / np.sum(weights)
        cache_bytes = config.cache_megabytes * 1e6
        self.caches = [
            ImageCache(source, cache_bytes * weight / np.sum(weights), self.crop_size)
            for source, weight in zip(sources, weights, strict=True)
        ]
        # A source without a usable picture should show now, not from within a data pipeline.
        for cache in self.caches:
            _, image = cache.get(0)
            self._warn_of_small_sub_images(cache.source, min(image.shape[:2]))

    def _warn_of_small_sub_images(self, source: ImageSource, side: int) -> None:
        """Sub-images of prepared data, all of one size, that `scale_augmentation` cannot reduce as far as it should."""
        needed = round(self.crop_size / self.config.scale_augmentation)
        if source.held_out is not None and side < needed:
            share = self.config.scale_augmentation
            _logger.warning(
                "%s: sub-images of %d pixels a side are too small for --scale_augmentation=%g: prepare them with --size=%d",
                *(source.location, side, share, needed),
            )

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.config.seed, index]))

    def _crop(self, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """(name, uint8 HR crop) from a random picture, reduced, flipped and transposed at random."""
        source = min(bisect.bisect_right(self._thresholds, rng.random()), len(self.caches) - 1)
        cache = self.caches[source]
        name, image = cache.get(int(rng.integers(len(cache.source.names))))
        side = self.crop_size
        if self.config.scale_augmentation < 1:
            side = min(round(side / rng.uniform(self.config.scale_augmentation, 1)), *image.shape[:2])
        top, left = (int(rng.integers(size - side + 1)) for size in image.shape[:2])
        crop = image[top : top + side, left : left + side]
        if side > self.crop_size:
            crop = degradation.resize(crop, self.crop_size, self.crop_size)
        flip_rows, flip_columns, transpose = rng.integers(2, size=3)
        crop = crop[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        return name, np.ascontiguousarray(crop.transpose(1, 0, 2) if transpose else crop)

    def _degradation(self, rng: np.random.Generator) -> PatchDraw:
        config = self.config
        low, high = config.quality
        # Even on a logarithmic scale: up to 50 the quantisation step, hence the damage, goes with 1 / quality. The range
        # is widened by half a level at each end, so that its ends are drawn as often as their neighbours.
        logs = rng.uniform(math.log(low - 0.5), math.log(high + 0.5), size=2)
        first_quality, quality = (min(max(round(math.exp(log)), low), high) for log in logs)
        is_clean, is_double, is_444, is_shifted = rng.random(4) < (
            config.clean_share,
            config.double_share,
            config.chroma_444_share,
            config.shifted_share,
        )
        is_double &= not is_clean
        first_top, first_left = (int(shift) for shift in rng.integers(8, size=2) * is_double)
        top, left = (int(rng.integers(MARGIN - first + 1)) if is_shifted else 0 for first in (first_top, first_left))
        return PatchDraw(
            first_quality=first_quality if is_double else 0,
            first_top=first_top,
            first_left=first_left,
            quality=0 if is_clean else quality,
            chroma_444=bool(is_444),
            top=top,
            left=left,
        )

    def draw(self, index: int) -> tuple[np.ndarray, PatchDraw]:
        """The HR crop, uint8 `[S, S, 3]` with S = `crop_size`, and what is to be done to it."""
        rng = self._generator(index)
        _, crop = self._crop(rng)
        return crop, self._degradation(rng)

    def name(self, index: int) -> str:
        """The picture that patch `index` comes from."""
        return self._crop(self._generator(index))[0]

    def patch(self, index: int) -> Patch:
        """Patch number `index`, degraded by the NumPy reference."""
        crop, draw = self.draw(index)
        return _degrade(crop, draw, self.scale, self.config.patch_size, degradation)


def _degrade(crop, draw: PatchDraw, scale: int, patch_size: int, operations) -> Patch:
    """The one recipe from crop to patch, over the NumPy `degradation` or the TensorFlow `degradation_graph`."""
    lr = operations.downscale(crop, scale)
    compressed = operations.jpeg(lr, draw.first_quality, draw.chroma_444)
    compressed = compressed[draw.first_top :, draw.first_left :]
    compressed = operations.jpeg(compressed, draw.quality, draw.chroma_444)
    top, left = draw.first_top + draw.top, draw.first_left + draw.left

    def cut(image, top, left, factor=1):
        size = patch_size * factor
        return image[top * factor : top * factor + size, left * factor : left * factor + size]

    return Patch(hr=cut(crop, top, left, scale), lr=cut(lr, top, left), compressed=cut(compressed, draw.top, draw.left))


def patch_dataset(
    sampler: PatchSampler, batch_size: int, first_index: int = 0, num_workers: int = 1, worker: int = 0
) -> "tf.data.Dataset":
    """The stream of patches from `first_index` on, as batches for one worker.

    Args:
      sampler: where the patches come from.
      batch_size: patches per batch and worker.
      first_index: index of the first patch of the first global batch.
      num_workers: number of workers that share the stream; each global batch has `num_workers * batch_size` patches.
      worker: which of them this is.

    Returns:
      An endless `tf.data.Dataset` of `Patch` with uint8 `[batch_size, ., ., 3]` components, in order. When drawing fails, it
      raises a `tf.errors.OpError`, and `sampler.failure` has the reason.
    """
    import tensorflow as tf

    from jpegsr import degradation_graph

    patch_size, scale, crop_size = sampler.config.patch_size, sampler.scale, sampler.crop_size

    def draw(index):
        try:
            crop, decisions = sampler.draw(int(index))
        except UserError as error:
            sampler.failure = error
            raise
        return crop, np.array(decisions, np.int32)

    def make(index):
        crop, numbers = tf.numpy_function(draw, [index], (tf.uint8, tf.int32), stateful=False)
        crop = tf.ensure_shape(crop, (crop_size, crop_size, 3))
        decisions = PatchDraw(*tf.unstack(tf.ensure_shape(numbers, len(PatchDraw._fields))))
        decisions = decisions._replace(chroma_444=tf.cast(decisions.chroma_444, tf.bool))
        patch = _degrade(crop, decisions, scale, patch_size, degradation_graph)
        sizes = (patch_size * scale, patch_size, patch_size)
        return Patch(*(tf.ensure_shape(part, (size, size, 3)) for part, size in zip(patch, sizes, strict=True)))

    indices = tf.data.Dataset.range(first_index + worker, np.iinfo(np.int64).max, num_workers)
    patches = indices.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return patches.batch(batch_size, drop_remainder=True).prefetch(4)


def validation_images(sources: list[ImageSource], crop: int, scale: int) -> list[np.ndarray]:
    """The central crop of every picture, uint8 `[H, W, 3]`, at most `crop` a side and a multiple of the scale."""
    crops = []
    for source in sources:
        for index in range(len(source.names)):
            try:
                image = source.read(index)
            except DamagedDataError:
                raise
            except UserError as error:
                _logger.warning("skipped: %s", error)
                continue
            top, left = (max(0, (size - crop) // 2) for size in image.shape[:2])
            crops.append(degradation.crop_to_multiple(image[top : top + crop, left : left + crop], scale))
    return crops
