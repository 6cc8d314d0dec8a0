"""Pictures and photos, end to end: load a model once, enhance arrays, Pillow images and files with it."""

import functools
import math
import os

import numpy as np
import psutil
from PIL import Image, ImageOps

from jpegsr import inference, inspection, model_files, photos, runtimes, transparency
from jpegsr.errors import UserError
from jpegsr.photos import Photo

# Memory for a tile in the network, in bytes; larger tiles lose less to their overlap, but hardly so beyond this.
TILE_MEMORY = 600_000_000
_SMALLEST_TILE = 128
_LEAST_INNER_SIDE = 24  # pixels of a tile that are not overlap
# Restoring at the same size, the network's own errors outweigh what it removes from fine JPEGs. The share of its residual that
# still gains falls from all at the first quality to none at the second (what that brings: results/restoring.json).
_ALL_UP_TO, _NONE_FROM = 88, 97


class Enhancer:
    """A model, loaded once, that removes compression artifacts from pictures and enlarges them.

    An instance may be used from several threads; one tile at a time is in the network, with all cores.

    Args:
      model: a shipped name ("base"), a `.keras` file, or the folder of a training run; or a network that is ready, which has a
        scale, runtime and device of its own.
      scale: 2, 3 or 4; 1 restores without enlarging; by default what the model does (2 for shipped names).
      runtime: "tensorflow" (float32), "openvino" or "litert" (int8), or "auto", the fastest one at hand.
      strength: 0-1, the share of the artifact removal that is applied; 0 enlarges the picture as it is. At scale 1, JPEG files
        above quality 88 get less than that, and those from 97 on nothing, unless they were coarser before.
      self_ensemble: average over the 8 flips and turns of the picture: 8 times slower, a little better.
      tile_size: side of a tile in input pixels, overlap included; by default as the free memory allows.
      tile_memory: bytes that a tile may take while it is in the network; by default `TILE_MEMORY`, or less where less is free.
        Set, the tiles do not depend on what else runs on the machine, and neither do the last bits of the result.
      device: "cpu" or "gpu"; by default what the runtime prefers.
      num_threads: of the network; by default one per core.

    Raises:
      UserError: no such model, scale, runtime or device, or a value out of range.
    """

    def __init__(
        self,
        model: str | runtimes.Network = "base",
        scale: int | None = None,
        runtime: str = "auto",
        *,
        strength: float = 1.0,
        self_ensemble: bool = False,
        tile_size: int | None = None,
        tile_memory: int | None = None,
        device: str | None = None,
        num_threads: int | None = None,
    ):
        if not 0 <= strength <= 1:
            raise UserError(f"strength {strength} is not between 0 and 1")
        self.network = runtimes.load(model, scale, runtime, device, num_threads) if isinstance(model, str) else model
        if scale not in (None, self.network.scale):
            raise UserError(f"the network enlarges {self.network.scale} times, not {scale}")
        self._smallest_tile = max(_SMALLEST_TILE, 2 * self.network.overlap + _LEAST_INNER_SIDE)
        if tile_size is not None and tile_size < self._smallest_tile:
            raise UserError(f"tile_size {tile_size} is below {self._smallest_tile}: smaller tiles are all overlap")
        self._tile_size, self._tile_memory = tile_size, tile_memory
        self._strength, self._self_ensemble = strength, self_ensemble

    @property
    def scale(self) -> int:
        """How many times larger the result is."""
        return self.network.scale

    def enhance(
        self, picture: np.ndarray | Image.Image | str | os.PathLike[str], progress: inference.Progress | None = None
    ) -> np.ndarray | Image.Image:
        """Enhance one picture.

        Args:
          picture: an array, uint8 or uint16, sRGB `[H, W, 3]` or gray `[H, W]`, or with opacity as the last channel,
            `[H, W, 4]` or `[H, W, 2]`; a Pillow image (with its EXIF orientation, which is applied); or the path of a photo.
          progress: called with (tiles done, tiles in all) in this thread; what it raises ends the work.

        Returns:
          An array of the same type and channels, `[scale * H, scale * W, ...]`; for a Pillow image a Pillow image; for a
          path the upright picture in sRGB as an array `[scale * H, scale * W, C]`, C as above.

        Raises:
          UserError: the photo cannot be read.
          ValueError: the array has another type or shape.
        """
        if isinstance(picture, Image.Image):
            return self._enhance_pillow(picture, progress)
        if isinstance(picture, str | os.PathLike):
            return _joined(self.enhance_photo(photos.read(picture), progress))
        array = np.asarray(picture)
        channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
        if array.dtype not in (np.uint8, np.uint16) or channels not in (1, 2, 3, 4) or array.size == 0:
            raise ValueError(
                f"expected uint8 or uint16 [H, W], [H, W, 3], or with alpha [H, W, 2] or [H, W, 4], "
                f"got {array.dtype} {list(array.shape)}"
            )
        result = _joined(self.enhance_photo(_split(array.reshape(*array.shape[:2], channels)), progress))
        return result[..., 0] if array.ndim == 2 else result

    def _enhance_pillow(self, image: Image.Image, progress: inference.Progress | None) -> Image.Image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits, or 32 that hold 16
            levels = np.asarray(image)
            if levels.min() < 0 or levels.max() > 65535:
                raise ValueError(f"the levels of this image of mode {image.mode} are not within 0-65535")
            return Image.fromarray(self.enhance(levels.astype(np.uint16), progress))  # type: ignore[arg-type]
        if image.mode == "F":
            raise ValueError("the levels of an image of mode F have no scale: give uint8 or uint16")
        if image.mode == "La":  # which Pillow converts to nothing else
            image = image.convert("LA")
        kept = {key: value for key, value in image.info.items() if key in ("icc_profile", "dpi")}
        if image.mode not in ("L", "RGB", "LA", "RGBA") or (image.has_transparency_data and image.mode in ("L", "RGB")):
            if image.mode not in ("1", "P", "L", "RGB", "RGBX"):
                kept.pop("icc_profile", None)  # which is for other colours than those below
            is_gray = image.mode in ("1", "L", "La")
            image = image.convert("RGBA") if image.has_transparency_data else image.convert("L" if is_gray else "RGB")
        result = Image.fromarray(self.enhance(np.asarray(image), progress))  # type: ignore[arg-type]
        result.info.update(kept)
        return result

    def enhance_photo(self, photo: Photo, progress: inference.Progress | None = None) -> Photo:
        """Enhance a decoded photo; arguments and errors as in `enhance`."""
        pixels = photo.pixels
        if photo.alpha is not None:
            pixels = transparency.fill_transparent(pixels, photo.alpha)
        is_colourless = pixels.shape[2] == 3 and _is_colourless(pixels)
        # A gray picture that is stored in three channels must not get a tint.
        source = np.ascontiguousarray(pixels[..., :1]) if is_colourless else pixels
        result = inference.apply(self._run(photo.jpeg), source, self._tiling(), progress)
        if is_colourless:
            result = np.repeat(result, 3, axis=2)
        return Photo(result, None if photo.alpha is None else transparency.enlarge_alpha(photo.alpha, self.scale))

    def _run(self, jpeg: bytes | None) -> inference.Run:
        """The network at the strength for a photo that was, or was not, read from a JPEG file."""
        run, strength = self.network.run, self._strength

        def run_with_strength(pixels: np.ndarray) -> np.ndarray:
            return run(pixels, strength)

        def restore(pixels: np.ndarray) -> np.ndarray:
            # Here, and not in the network: one on a server knows no strength but 1.
            restored = run(pixels, 1.0) if strength else pixels
            return restored if strength in (0, 1) else pixels + strength * (restored - pixels)

        if self.scale > 1:
            return inference.self_ensemble(run_with_strength) if self._self_ensemble else run_with_strength
        strength *= restoring_share(None if jpeg is None else inspection.coarsest_quality(jpeg, _ALL_UP_TO))
        return inference.self_ensemble(restore) if self._self_ensemble else restore

    def _tiling(self) -> inference.Tiling:
        if self._tile_size is None and self.network.tiling:
            return self.network.tiling
        if self._tile_size:
            max_tile_pixels = self._tile_size**2
        else:
            memory = self._tile_memory or min(TILE_MEMORY, psutil.virtual_memory().available // 4)
            max_tile_pixels = max(memory // self.network.bytes_per_pixel, self._smallest_tile**2)
        return inference.Tiling(self.scale, self.network.overlap, self.network.alignment, max_tile_pixels)

    def num_tiles(self, height: int, width: int) -> int:
        """How many tiles a picture of this size takes, with the memory that is free now."""
        return math.prod(len(cuts.starts) for cuts in self._tiling().shape(height, width))


def restoring_share(quality: int | None) -> float:
    """How much of what the network finds to restore in a JPEG of this quality is to be applied, 0-1; all if it is not known."""
    if quality is None:
        return 1.0
    return min(max((_NONE_FROM - quality) / (_NONE_FROM - _ALL_UP_TO), 0.0), 1.0)


def _is_colourless(pixels: np.ndarray) -> bool:
    """Whether red, green and blue agree everywhere; answered from the first rows for nearly all colour photos."""
    return all(
        bool((pixels[rows, :, :1] == pixels[rows, :, 1:]).all())
        for rows in (slice(start, start + 64) for start in range(0, len(pixels), 64))
    )


def _split(array: np.ndarray) -> Photo:
    """`[H, W, 1-4]` -> colour and opacity."""
    if array.shape[2] in (1, 3):
        return Photo(array)
    return Photo(np.ascontiguousarray(array[..., :-1]), np.ascontiguousarray(array[..., -1:]))


def _joined(photo: Photo) -> np.ndarray:
    return photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha], axis=2)


@functools.lru_cache(maxsize=4)
def _cached_enhancer(path: str, scale: int | None, _checksum: str) -> Enhancer:
    return Enhancer(path, scale)


def enhance(image: np.ndarray, scale: int | None = None, model: str = "base") -> np.ndarray:
    """Remove the compression artifacts of a picture and enlarge it, as `Enhancer` does with its defaults.

    The four models used last stay loaded; one whose file changes, because it is still in training, is loaded again.

    Args:
      image: uint8 or uint16, sRGB `[H, W, 3]` or gray `[H, W]`; with opacity `[H, W, 4]` or `[H, W, 2]`.
      scale: 1 (restore only), 2, 3 or 4; by default that of the model.
      model: a shipped name, a `.keras` file, or the folder of a training run.

    Returns:
      The same type and channels, `[scale * H, scale * W, ...]`.

    Raises:
      UserError: no such model, or none for that scale.
      ValueError: the array is not of one of these types and shapes.
    """
    path = model_files.find(model, scale)
    enhancer = _cached_enhancer(str(path), scale, model_files.read_card(path)["sha256"])
    return enhancer.enhance(np.asarray(image))  # type: ignore[return-value]
