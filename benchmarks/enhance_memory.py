"""Peak resident memory of enhancing a large photo, above that of the process with the model loaded and warm.

    python benchmarks/enhance_memory.py [--output=results/enhance_memory.json]

Each runtime and size runs in a process of its own. 24 megapixels are 6000x4000; the case of 25 megapixels runs under a limit of
4 GB of memory (RLIMIT_DATA), as on a small machine, and gives 100 megapixels.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import figures_file
import numpy as np
from absl import app, flags
from peak_memory import PeakMemory
from PIL import Image
from sample_photo import make_photo

from jpegsr import photos
from jpegsr.enhancement import Enhancer

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_list("cases", ["openvino:24", "tensorflow:24", "litert:24", "openvino:25:4"], "RUNTIME:MEGAPIXELS[:LIMIT_GB]")
flags.DEFINE_string("case", None, "internal: measure one case in this process, on this photo")
flags.DEFINE_string("photo", None, "internal")


def measure(case: str, source: pathlib.Path) -> dict[str, float]:
    """One case, in this process."""
    runtime, _, limit = case.split(":") if case.count(":") == 2 else (*case.split(":"), "")
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit) * 2**30,) * 2)
    enhancer = Enhancer("base", 2, runtime)
    enhancer.enhance(np.zeros((64, 64, 3), np.uint8))
    started = time.perf_counter()
    with PeakMemory() as memory:
        photo = photos.read(source)
        target = source.with_suffix(f".{runtime}.png")
        photos.write(target, enhancer.enhance_photo(photo), photo)
    seconds = time.perf_counter() - started
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(target) as result:
        megapixels = result.width * result.height / 1e6
    target.unlink()
    return {
        "gigabytes_above_loaded_model": round((memory.peak - memory.before) / 1e9, 3),
        "gigabytes_in_all": round(memory.peak / 1e9, 3),
        "output_megapixels": megapixels,
        "seconds": round(seconds, 1),
    }


def main(_: list[str]) -> None:
    if FLAGS.case:
        print(json.dumps(measure(FLAGS.case, pathlib.Path(FLAGS.photo))))
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in FLAGS.cases:
            side = 1000 * float(case.split(":")[1]) ** 0.5
            path = pathlib.Path(folder) / "photo.jpg"
            make_photo(path, round(side))
            command = [sys.executable, __file__, f"--case={case}", f"--photo={path}"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures[case] = json.loads(output.splitlines()[-1])
            print(case, figures[case])
    if FLAGS.output:
        figures_file.write(FLAGS.output, "base x2, JPEG in, PNG out", {"cases": figures})


if __name__ == "__main__":
    app.run(main)
