"""`jpegsr evaluate`: scores of models on test pictures, as tables and contact sheets."""

import argparse
import logging
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from absl import flags

from jpegsr.cli.settings import parse_integers
from jpegsr.config import SCALES
from jpegsr.errors import UserError

if TYPE_CHECKING:
    from jpegsr.systems import LoadedSystems

_logger = logging.getLogger(__name__)
DESCRIPTION = """Reduce and compress test pictures, restore them with each model, and score the results beside bicubic.

Prints a Markdown summary and writes results.csv (every picture), results.json, results.md and a contact sheet per picture.
Other upscalers can be scored in the same run: see docs/evaluate.md for what a file given to --systems holds."""
EXAMPLES = (
    "jpegsr evaluate --model=base --scale=2 --qualities=10,20,30 --datasets=Set5=Set5,Set14=Set14 --output_dir=scores",
    "jpegsr evaluate --model=base,runs/mine --qualities=0,10 --datasets=mine=photos --output_dir=scores",
    "jpegsr evaluate --model=base --systems=mine.py,benchmarks/systems/vdsr.py --datasets=Set5=Set5 --output_dir=scores",
)

FLAGS = flags.FlagValues()
flags.DEFINE_list("model", ["base"], "shipped names, .keras files or folders of training runs", flag_values=FLAGS)
flags.DEFINE_list("systems", [], "Python files that hold other upscalers, to be scored as well", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "only_system", [], "name of a system to score, of those in the files; may be repeated; all without it", flag_values=FLAGS
)
flags.DEFINE_integer("scale", 2, "reduce by this factor and enlarge by it again", flag_values=FLAGS)
flags.DEFINE_list("qualities", ["10", "20", "30", "40"], "JPEG qualities; 0 is uncompressed", flag_values=FLAGS)
flags.DEFINE_list("datasets", None, "NAME=FOLDER of test pictures, several separated by commas (required)", flag_values=FLAGS)
flags.DEFINE_string("output_dir", None, "folder for the results (required)", flag_values=FLAGS)
flags.DEFINE_enum(
    "runtime", "tensorflow", ["tensorflow", "openvino", "litert"], "what runs the models; see `enhance`", flag_values=FLAGS
)
flags.DEFINE_bool("self_ensemble", False, "average over 8 flips and turns of each picture", flag_values=FLAGS)
flags.DEFINE_bool("contact_sheets", True, "draw a sheet per picture: original, JPEG, bicubic and models", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def _parse_datasets(values: list[str] | None) -> dict[str, str]:
    if not values:
        raise UserError("name test pictures with --datasets=NAME=FOLDER")
    datasets = {}
    for value in values:
        name, _, folder = value.partition("=")
        if not name or not folder:
            raise UserError(f"--datasets={value} is not NAME=FOLDER")
        if name in datasets:
            raise UserError(f"--datasets names {name!r} twice: give each folder a name of its own")
        datasets[name] = folder
    return datasets


def _load_systems(taken: Iterable[str]) -> "LoadedSystems":
    """What --systems asks for; tells of those that cannot run here, and that no two rows have one name."""
    from jpegsr import systems

    loaded = systems.load(FLAGS.systems, FLAGS.scale, FLAGS.only_system)
    for name, reason in loaded.skipped.items():
        _logger.warning("system %s is left out: %s", name, reason)
    if repeated := sorted({*taken} & {*loaded.systems}):
        raise UserError(f"{str(loaded.files[repeated[0]])!r} has a system {repeated[0]!r}, as another row is called: rename it")
    return loaded


def _label(cards: list[tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Models and their cards by the name that tables show: that of the card, or the argument where cards share a name."""
    names = [card["name"] for _, card in cards]
    labels = [argument if names.count(card["name"]) > 1 else card["name"] for argument, card in cards]
    if len({*labels, "bicubic"}) <= len(labels):
        raise UserError(f"--model={','.join(argument for argument, _ in cards)} names a model twice, or one called bicubic")
    return dict(zip(labels, cards, strict=True))


def run(arguments: argparse.Namespace) -> int:
    from jpegsr.cli.main import load_tensorflow

    datasets = _parse_datasets(FLAGS.datasets)
    qualities = parse_integers("qualities", FLAGS.qualities)
    if not qualities:
        raise UserError("name at least one JPEG quality with --qualities")
    if bad := [quality for quality in qualities if not 0 <= quality <= 100]:
        raise UserError(f"JPEG quality {bad[0]} is not within 0-100")
    if FLAGS.scale not in SCALES:
        raise UserError(f"scale {FLAGS.scale} is not one of {', '.join(map(str, SCALES))}")
    if not FLAGS.output_dir:
        raise UserError("name the folder for the results with --output_dir")
    if FLAGS.runtime == "tensorflow":
        load_tensorflow()
    from tqdm import tqdm

    from jpegsr import evaluation, images, model_files, provenance, reports, runtimes
    from jpegsr.enhancement import Enhancer

    provenance.source()  # that of the code which is about to run, whatever is committed meanwhile
    cards = [(argument, model_files.read_card(model_files.find(argument, FLAGS.scale))) for argument in FLAGS.model]
    models = _label(cards)
    methods: dict[str, evaluation.Method] = {
        name: Enhancer(argument, FLAGS.scale, FLAGS.runtime, self_ensemble=FLAGS.self_ensemble).enhance  # type: ignore[misc]
        for name, (argument, _) in models.items()
    }
    plugins = _load_systems(["bicubic", *models])
    folder = pathlib.Path(FLAGS.output_dir)
    num_pictures = sum(len(evaluation.list_test_pictures(path, FLAGS.scale)) for path in datasets.values())
    images.require_writable(folder)
    scores: list[evaluation.Score] = []
    sheet, sheet_name = reports.ContactSheet(), ""
    comparisons = evaluation.evaluate(methods, datasets, FLAGS.scale, qualities, plugins.systems)
    for comparison in tqdm(comparisons, total=num_pictures * len(qualities), unit="picture"):
        scores += [score for score, _ in comparison.results.values()]
        if FLAGS.contact_sheets:
            if sheet_name != (name := f"{scores[-1].dataset}/{scores[-1].image}"):
                sheet, sheet_name = reports.ContactSheet(), name
            sheet.add(comparison)
            if scores[-1].quality == qualities[-1]:
                sheet.save(folder / f"{name}.png")
    described = {
        name: {
            "sha256": card["sha256"],
            "config": card["config"],
            "files": runtimes.checksums(model_files.find(argument, FLAGS.scale), FLAGS.runtime),
        }
        for name, (argument, card) in models.items()
    }
    origin = reports.origin_of(arguments.command_line, " ".join((evaluation.__doc__ or "").split()), described, plugins)
    text = reports.markdown(scores, origin)
    reports.write_csv(folder / "results.csv", scores)
    reports.write_json(folder / "results.json", scores, origin)
    images.write_text(folder / "results.md", text)
    print(text)
    return 0
