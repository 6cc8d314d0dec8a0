"""Learn the dictionaries of SCSR and LBJSRD from a folder of good pictures; a few minutes.

python benchmarks/systems/train_dictionaries.py --data=T91
"""

import json
import pathlib
import shlex
import sys
from collections.abc import Iterator

import lbjsrd
import numpy as np
import scsr
import sparse_patches
from absl import app, flags

from jpegsr import degradation, images, metrics, reports
from jpegsr.images import write_text

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "folder of pictures", required=True)
flags.DEFINE_integer("scale", 2, "how much the systems enlarge")
flags.DEFINE_integer("num_patches", 40_000, "patches that each dictionary is learnt from")
flags.DEFINE_string("weights_dir", str(sparse_patches.WEIGHTS_FOLDER), "where the dictionaries go")


def planes(quality: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(luma, luma of the bicubic enlargement after JPEG compression, 0 for none) of all pictures, float64 `[H, W]`."""
    for path in images.list_images(FLAGS.data):
        original = degradation.crop_to_multiple(images.read_rgb(path), FLAGS.scale)
        compressed = degradation.jpeg(degradation.downscale(original, FLAGS.scale), quality)
        yield metrics.luma(original), metrics.luma(degradation.upscale_bicubic(compressed, FLAGS.scale))


def choose(num_wanted: int, least_norm: float, *samples: np.ndarray) -> list[np.ndarray]:
    """As many rows at random, the same of all arrays, out of those in which the first array has something to see."""
    usable = np.flatnonzero(np.linalg.norm(samples[0], axis=1) >= least_norm)
    rows = np.random.default_rng(0).permutation(usable)[:num_wanted]
    return [array[rows] for array in samples]


def learn_scsr() -> dict[str, np.ndarray]:
    seen, wanted = [], []
    for original, bicubic in planes(0):
        seen.append(sparse_patches.cut(scsr.describe(bicubic), scsr.SIZE, 3))
        wanted.append(sparse_patches.cut(original - bicubic, scsr.SIZE, 3))
    pairs = choose(FLAGS.num_patches, 20.0, np.concatenate(seen), np.concatenate(wanted))
    low = sparse_patches.learn(pairs[0], scsr.NUM_ATOMS, scsr.PENALTY)
    return {"low": low, "high": sparse_patches.couple(*pairs, low, scsr.PENALTY)}


def learn_lbjsrd() -> dict[str, np.ndarray]:
    def cut(plane: np.ndarray) -> np.ndarray:
        return sparse_patches.cut(plane, lbjsrd.SIZE, 5)

    seen, wanted, artifacts = [], [], []
    for original, bicubic in planes(0):
        smooth, detail = lbjsrd.split(bicubic)
        seen.append(cut(detail))
        wanted.append(cut(original - smooth))
    for quality in lbjsrd.QUALITIES:
        for (_, bicubic), (_, compressed) in zip(planes(0), planes(quality), strict=True):
            artifacts.append(cut(lbjsrd.split(compressed)[1] - lbjsrd.split(bicubic)[1]))
    pairs = choose(FLAGS.num_patches, 20.0, np.concatenate(seen), np.concatenate(wanted))
    (samples,) = choose(FLAGS.num_patches, 10.0, np.concatenate(artifacts))
    clean = sparse_patches.learn(pairs[0], lbjsrd.NUM_ATOMS, lbjsrd.PENALTY)
    artifact = sparse_patches.learn(samples, lbjsrd.NUM_ARTIFACT_ATOMS, lbjsrd.PENALTY)
    high = sparse_patches.couple(*pairs, clean, lbjsrd.PENALTY)
    return {"clean": clean, "artifact": artifact, "high": high}


def main(_: list[str]) -> None:
    for name, learn in (("scsr", learn_scsr), ("lbjsrd", learn_lbjsrd)):
        path = pathlib.Path(FLAGS.weights_dir, f"{name}_x{FLAGS.scale}.npz")
        np.savez_compressed(path, **{key: array.astype(np.float16) for key, array in learn().items()})
        origin = reports.origin_of("python " + shlex.join(sys.argv), __doc__.splitlines()[0], {})
        write_text(path.with_suffix(".json"), json.dumps(origin, indent=2) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    app.run(main)
