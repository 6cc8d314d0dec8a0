"""What a served model does, as TensorFlow functions: the signatures of the SavedModel that `serving` writes.

Pictures are uint8 `[B, H, W, 3]`; between them and the network there is the same rounding as everywhere in this package.
Pictures of any size are cut into tiles within the graph, so that the memory they take does not grow with them, and the
enlarged result is that of `jpegsr enhance`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from jpegsr import encoded_pictures, models, runtimes
from jpegsr.config import ModelConfig
from jpegsr.encoded_pictures import ImageFormat, checked
from jpegsr.errors import UserError
from jpegsr.pixels import to_levels, to_unit
from jpegsr.weights import TrainedModel

Output = Literal["upscaled", "restored"]
Endpoint = Callable[..., dict[str, tf.Tensor]]
# float32 [B, H, W, 3] -> float32 [B, scale * H, scale * W, 3]
Network = Callable[[tf.Tensor], tf.Tensor]

WARMUP_SIDE = 64  # pixels, of the pictures in warm-up requests
_MAX_TILE_PIXELS = 16_000_000  # of a request for tiles: its answer at x4 then stays below protobuf's limit of 2 GB


@dataclasses.dataclass(frozen=True)
class ServingOptions:
    """What is fixed when a model is exported for serving.

    Attributes:
      tile_size: side of the tiles that `upscale_tiles` takes, in pixels.
      tile_batch: how many of them it takes at a time.
      precision: in which `upscale_tiles` computes: "float32" or "bfloat16", which TPUs and recent GPUs are made for.
      image_format: what `serving_default` answers with.
      jpeg_quality: of its answers, if that is "jpeg".
      max_pixels: larger requests (all pictures of a batch together, or each encoded one) are refused.
      warmup_tiles: whether the warm-up requests include one of tiles. A server that cannot compile with XLA, as TensorFlow
        Serving cannot unless it is told to, would not come up with it.
    """

    tile_size: int = 384
    tile_batch: int = 4
    precision: Literal["float32", "bfloat16"] = "float32"
    image_format: ImageFormat = "png"
    jpeg_quality: int = 95
    max_pixels: int = 50_000_000
    warmup_tiles: bool = False

    def __post_init__(self) -> None:
        for name in ("tile_size", "tile_batch", "max_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)} is not above zero")
        if self.max_pixels < WARMUP_SIDE**2:
            raise UserError(
                f"--max_pixels={self.max_pixels} is below the {WARMUP_SIDE**2} of the pictures that warm a server up"
            )
        if (num_pixels := self.tile_batch * self.tile_size**2) > _MAX_TILE_PIXELS:
            raise UserError(f"--tile_batch={self.tile_batch} of --tile_size={self.tile_size} are {num_pixels} pixels: too many")
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"--jpeg_quality={self.jpeg_quality} is not within 1-100")


DEFAULT_OPTIONS = ServingOptions()


class Endpoints:
    """The served functions of a model; each takes and returns named tensors.

    Args:
      trained: the model.
      options: as above.

    Raises:
      UserError: the tiles are no larger than what they have to overlap.
    """

    def __init__(self, trained: TrainedModel, options: ServingOptions):
        self.trained = trained
        self.options = options
        self.config = trained.config
        if options.tile_size <= 2 * self.config.receptive_radius:
            raise UserError(
                f"--tile_size={options.tile_size} leaves nothing of a tile: neighbours of this model overlap "
                f"by {2 * self.config.receptive_radius} pixels"
            )
        self.tile_model = _with_precision(trained.model, self.config, options.precision)

    def image_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encoded pictures: string `[B]`, JPEG or PNG of any sizes -> string `[B]`, PNG or JPEG as the options say."""
        options = self.options

        def enlarged(content: tf.Tensor) -> tf.Tensor:
            picture, is_gray = encoded_pictures.decode(content, options.max_pixels)
            picture = encoded_pictures.check_encodable(picture, self.config.scale, options.image_format)
            levels = self._any_size(picture[tf.newaxis], "upscaled")[0]
            return encoded_pictures.encode(levels, is_gray, options.image_format, options.jpeg_quality)

        # One after the other: each has all cores, and one at a time is in memory.
        return {"image_bytes": tf.map_fn(enlarged, image_bytes, fn_output_signature=tf.string, parallel_iterations=1)}

    def upscale(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 `[B, H, W, 3]` -> uint8 `[B, scale * H, scale * W, 3]`."""
        return {"upscaled": self._any_size(image, "upscaled")}

    def restore(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 `[B, H, W, 3]` -> the same without compression artifacts."""
        return {"restored": self._any_size(image, "restored")}

    def upscale_tiles(self, tiles: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 `[N, T, T, 3]`, N and T fixed -> uint8 `[N, scale * T, scale * T, 3]`; compiled by XLA as a whole."""

        @tf.function(jit_compile=True, autograph=False)
        def compiled(tiles: tf.Tensor) -> tf.Tensor:
            return to_levels(self.tile_model(to_unit(tiles), training=False)["upscaled"])

        return {"upscaled": compiled(tiles)}

    def describe(self, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Facts for clients: string `[K]` -> string `[K]`, values by name; "" for names that mean nothing."""
        facts = self.facts()
        matches = keys[:, tf.newaxis] == tf.constant(list(facts))
        values = tf.gather(tf.constant(list(facts.values())), tf.argmax(matches, axis=1))
        return {"values": tf.where(tf.reduce_any(matches, axis=1), values, "")}

    def facts(self) -> dict[str, str]:
        """What `describe` knows, numbers in decimal.

        name and sha256 of the weights; scale; overlap, restore_overlap: how far a tile has to reach beyond what is kept of it,
        for either output; alignment: tiles start at multiples of it (all in pixels of the input); max_pixels; image_format of
        what `image_bytes` answers.
        """
        return {
            "name": self.trained.name,
            "sha256": self.trained.checksum,
            "scale": str(self.config.scale),
            "overlap": str(self.config.receptive_radius),
            "restore_overlap": str(self.config.car_receptive_radius),
            "alignment": str(self.config.alignment),
            "max_pixels": str(self.options.max_pixels),
            "image_format": self.options.image_format,
        }

    def _any_size(self, image: tf.Tensor, output: Output) -> tf.Tensor:
        """uint8 `[B, H, W, 3]` -> uint8 `[B, s * H, s * W, 3]`, in one go where it is small."""
        shape = tf.shape(image, tf.int64)
        num_pixels = shape[0] * shape[1] * shape[2]
        image = checked(image, num_pixels > 0, "the picture has no pixels")
        limit = self.options.max_pixels
        too_large = ("the request has ", num_pixels, f" pixels, more than the {limit} that this server takes")
        image = checked(image, num_pixels <= limit, *too_large)
        side = tile_side(self.config)
        scale = self.config.scale if output == "upscaled" else 1
        overlap = self.config.receptive_radius if output == "upscaled" else self.config.car_receptive_radius

        def network_for(pictures: tf.Tensor) -> Network:
            # A gray picture must not get a tint, as in `Enhancer`.
            is_gray = tf.reduce_all(pictures[..., :1] == pictures[..., 1:], axis=(1, 2, 3), keepdims=True)

            def network(pixels: tf.Tensor) -> tf.Tensor:
                result = self.trained.model(pixels, training=False)[output]
                return tf.where(is_gray, tf.reduce_mean(result, axis=3, keepdims=True), result)

            return network

        def in_tiles(picture: tf.Tensor) -> tf.Tensor:
            pictures = picture[tf.newaxis]
            return run_in_tiles(network_for(pictures), pictures, scale, side, overlap, self.config.alignment)[0]

        return tf.cond(
            num_pixels <= side**2,
            lambda: to_levels(network_for(image)(to_unit(image))),
            lambda: tf.cond(
                shape[0] == 1,  # one picture is not copied once more
                lambda: in_tiles(image[0])[tf.newaxis],
                lambda: tf.map_fn(in_tiles, image, fn_output_signature=_PICTURE, parallel_iterations=1),
            ),
        )


_PICTURE = tf.TensorSpec((None, None, 3), tf.uint8)


def tile_side(config: ModelConfig) -> int:
    """Side of the tiles that a picture is cut into within the graph: what takes about 600 MB at most."""
    side = min(math.isqrt(600_000_000 // runtimes.bytes_per_pixel(config, "tensorflow")), 512)
    return max(side, 4 * config.receptive_radius)


def run_in_tiles(network: Network, image: tf.Tensor, scale: int, side: int, overlap: int, alignment: int) -> tf.Tensor:
    """Run a network over one picture in tiles, one after the other; the result is that of a single pass.

    Args:
      network: as above.
      image: uint8 `[1, H, W, 3]`.
      scale: of the network.
      side: of a tile, overlap included.
      overlap: the network's receptive radius.
      alignment: tiles start at multiples of this.

    Returns:
      uint8 `[1, scale * H, scale * W, 3]`.
    """
    margin = -(-overlap // alignment) * alignment
    core = max((side - 2 * margin) // alignment, 1) * alignment
    height, width = tf.unstack(tf.shape(image)[1:3])

    def extent(index: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """(first and last pixel that the tile reads, first and last that is kept of it)."""
        first, last = index * core, tf.minimum((index + 1) * core, size)
        return tf.maximum(first - margin, 0), tf.minimum(last + margin, size), first, last

    def tile(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        top, bottom, first_row, last_row = extent(row, height)
        left, right, first_column, last_column = extent(column, width)
        pixels = network(to_unit(image[:, top:bottom, left:right]))
        rows = slice((first_row - top) * scale, (last_row - top) * scale)
        columns = slice((first_column - left) * scale, (last_column - left) * scale)
        return to_levels(pixels[0, rows, columns])

    def strip(row: tf.Tensor) -> tf.Tensor:
        # Only the first axis may differ between the parts that are joined, so tiles lie on their side here.
        tiles = _joined(lambda column: tf.transpose(tile(row, column), (1, 0, 2)), -(-width // core))
        return tf.transpose(tiles, (1, 0, 2))

    return _joined(strip, -(-height // core))[tf.newaxis]


def _joined(part: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor) -> tf.Tensor:
    """`part(0)` ... `part(count - 1)`, uint8 `[., ., 3]`, made in turn and joined along the first axis."""
    parts = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None, 3))
    _, parts = tf.while_loop(
        lambda index, _: index < count,
        lambda index, parts: (index + 1, parts.write(index, part(index))),
        (0, parts),
        parallel_iterations=1,
    )
    return tf.ensure_shape(parts.concat(), (None, None, 3))


def _with_precision(model: keras.Model, config: ModelConfig, precision: str) -> keras.Model:
    """The model itself, or a copy that computes in bfloat16 and keeps its weights in float32."""
    if precision == "float32":
        return model
    with models.dtype_policy("mixed_bfloat16"):
        copy = models.build_joint(config)
    copy.set_weights(model.get_weights())
    return copy
