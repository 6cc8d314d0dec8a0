"""Build the page that enhances photos in the browser, docs/browser, into a folder that any web server can serve.

    python scripts/build_browser_page.py [--output_dir=build/browser] [--model=fast] [--scale=2]

Needs npm (with Node.js 18 or newer): LiteRT.js, the runtime, comes from its registry, in the versions and with the checksums of
docs/browser/package-lock.json. The model is the shipped `.tflite` file as it is.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from absl import app, flags

from jpegsr import model_files, runtimes
from jpegsr.config import ModelConfig
from jpegsr.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", "build/browser", "folder for the page; what is in there already stays, or is overwritten")
flags.DEFINE_string("model", None, "a shipped name or a .keras file with int8 files; by default fast, or base if it is missing")
flags.DEFINE_integer("scale", 2, "2, 3 or 4, of a shipped model")
flags.DEFINE_integer(
    "tile_pixels", 400 * 400, "input pixels of a tile, overlap included; smaller tiles show progress more often"
)

ROOT = pathlib.Path(__file__).parent.parent
SOURCE = ROOT / "docs" / "browser"
COPIED = ("index.html", "style.css", "page.js", "icon.svg")
# A browser loads one of them: with relaxed SIMD, without, or with that and threads. The fourth one in the package is for other
# processors.
RUNTIME_FILES = [f"litert_wasm{kind}_internal.{suffix}" for kind in ("", "_compat", "_threaded") for suffix in ("js", "wasm")]
# What browsers can hold in one canvas: 16.7 million pixels on phones.
MAX_RESULT_PIXELS = 16_000_000


def build(output: pathlib.Path, model: str | None, scale: int, tile_pixels: int) -> None:
    """Write the whole page; arguments as the flags."""
    weights_path = model_files.find(model or default_model(), scale)
    runtimes.load(str(weights_path), runtime="litert")  # says what is missing, or that the model cannot run
    (output / "litert").mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(SOURCE / name, output / name)
    shutil.copyfile(ROOT / "samples" / "coffee.jpg", output / "sample.jpg")
    bundle(output)
    model_path = runtimes.int8_path(weights_path, "litert")
    shutil.copyfile(model_path, output / model_path.name)
    settings = describe(weights_path, tile_pixels)
    downloads = [output / model_path.name, *(output / "litert" / name for name in RUNTIME_FILES[:2])]
    settings["download_bytes"] = sum(path.stat().st_size for path in downloads)
    (output / "model.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def default_model() -> str:
    """The fast model, as soon as it is shipped."""
    return "fast" if model_files.shipped_scales("fast") else "base"


def bundle(output: pathlib.Path) -> None:
    """Write the worker, with all that it imports in one script, and the runtime; npm installs into a temporary folder.

    The worker is a classic one, as LiteRT.js loads its WebAssembly with `importScripts`, which modules lack.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for path in (*SOURCE.glob("package*.json"), *SOURCE.glob("*.js")):
            shutil.copyfile(path, folder / path.name)
        call(folder, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")
        esbuild = folder / "node_modules" / ".bin" / "esbuild"
        options = ("--bundle", "--format=iife", "--target=es2022", "--minify-whitespace", "--minify-syntax")
        call(folder, str(esbuild), "worker.js", *options, f"--outfile={output.resolve() / 'worker.js'}")
        for file_name in RUNTIME_FILES:
            shutil.copyfile(folder / "node_modules/@litertjs/core/wasm" / file_name, output / "litert" / file_name)


def call(folder: pathlib.Path, *command: str) -> None:
    """Run a program in a folder; `UserError` with the start of what it said if it fails."""
    program = shutil.which(command[0])
    if program is None:
        raise UserError(f"{command[0]} is not installed: on Debian, `apt-get install nodejs npm`")
    result = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = " ".join((result.stderr or result.stdout).split("\n")[:4])
        raise UserError(f"{os.path.basename(command[0])} failed: {reason}")


def describe(weights_path: pathlib.Path, tile_pixels: int) -> dict[str, Any]:
    """What the page has to know of a model, from its card and from the `.tflite` file itself."""
    card = model_files.read_card(weights_path)
    config = ModelConfig.from_json(card["config"])
    path = runtimes.int8_path(weights_path, "litert")
    outputs = {
        "upscaled": {"scale": config.scale, "overlap": config.receptive_radius},
        "restored": {"scale": 1, "overlap": config.car_receptive_radius},
    }
    sizes = {name: size_fields(path.read_bytes(), name, output["scale"]) for name, output in outputs.items()}
    return {
        "name": f"{card['name']} x{config.scale}",
        # The query keeps browsers from taking another model's file, of the same name, from their cache.
        "file": f"{path.name}?sha256={model_files.sha256(path)[:16]}",
        "alignment": config.alignment,
        "max_tile_pixels": tile_pixels,
        "max_result_pixels": MAX_RESULT_PIXELS,
        "outputs": {name: {**output, "sizes": sizes[name]} for name, output in outputs.items()},
    }


def size_fields(content: bytes, signature: str, scale: int) -> list[dict[str, Any]]:
    """Where the height and the width of a signature's image and result stand in a `.tflite` file.

    The file leaves both open, and LiteRT.js, unlike LiteRT, cannot set them (`resize_tensor_input`). But they are plain 32-bit
    integers, so the page writes its tiles' size over them. That keeps the shipped file, and with it the results of `jpegsr`; an
    export with fixed tiles would be another model with other roundings, for one shape of tiles alone.

    Returns:
      {"offset": of the integer in bytes, "axis": "height" or "width", "times": of the tile's size} each.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    definitions = (model.SignatureDefs(i) for i in range(model.SignatureDefsLength()))
    definition = next(known for known in definitions if known.SignatureKey().decode() == signature)
    graph = model.Subgraphs(definition.SubgraphIndex())
    inputs = {definition.Inputs(i).Name().decode(): definition.Inputs(i) for i in range(definition.InputsLength())}
    if sorted(inputs) != ["image", "strength"] or definition.OutputsLength() != 1:
        raise UserError(f"signature {signature} takes {', '.join(sorted(inputs))}: made by another version of jpegsr?")
    start = np.frombuffer(content, np.uint8).ctypes.data
    fields = []
    for named, times in ((inputs["image"], 1), (definition.Outputs(0), scale)):
        tensor = graph.Tensors(named.TensorIndex())
        for dimensions in (tensor.ShapeAsNumpy(), tensor.ShapeSignatureAsNumpy()):
            if len(dimensions) != 4 or max(dimensions[1:3]) > 1:
                raise UserError(f"the size of {named.Name().decode()} is not open in the .tflite file: {dimensions}")
            first = dimensions.ctypes.data - start  # of the array, which is a view of the file
            fields.append({"offset": first + 4, "axis": "height", "times": times})
            fields.append({"offset": first + 8, "axis": "width", "times": times})
    return fields


def main(_: list[str]) -> None:
    try:
        build(pathlib.Path(FLAGS.output_dir), FLAGS.model, FLAGS.scale, FLAGS.tile_pixels)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{FLAGS.output_dir}: serve it with `python -m http.server --directory {FLAGS.output_dir}`")


if __name__ == "__main__":
    app.run(main)
