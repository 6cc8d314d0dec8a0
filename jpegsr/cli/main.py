"""`jpegsr SUBCOMMAND ...`: parse, run, and turn a `UserError` into one line on stderr."""

import argparse
import importlib
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from absl import flags
from absl.flags import argparse_flags

import jpegsr
from jpegsr.console import silenced_stderr
from jpegsr.errors import UserError

_SUBCOMMANDS = {
    "batch": "do what `enhance` does for an archive, on Apache Beam",
    "demo": "try it on a page in the browser",
    "enhance": "clean and enlarge photos",
    "evaluate": "score models on folders of test pictures",
    "export": "write a model as a TensorFlow SavedModel",
    "prepare": "cut training pictures into sub-images that are fast to read",
    "info": "tell what a photo is and what `enhance` would do with it",
    "remote": "do what `enhance` does, with the network on a TensorFlow Serving server",
    "quantize": "make the int8 files of a model for the fast CPU runtimes",
    "train": "train a model in three stages, or resume",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: the arguments after the program's name; those of this process by default.

    Returns:
      The exit status: 0 done, 1 (or its own) a `UserError`, 2 wrong flags, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, parser = _make_parser(arguments)
    try:
        namespace, other_arguments = parser.parse_known_args(arguments)
    except flags.IllegalFlagValueError as error:
        parser.error(str(error))
    if other_arguments and not getattr(command, "TAKES_OTHER_FLAGS", False):
        parser.error(f"unrecognized arguments: {shlex.join(other_arguments)}")
    if command is None:
        parser.print_help()
        return 2
    namespace.other_arguments = other_arguments
    _show_messages()
    try:
        namespace.command_line = f"jpegsr {shlex.join(arguments)}"
        return command.run(namespace)
    except UserError as error:
        print(f"jpegsr: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f" {os.fsdecode(error.filename)!r}" if error.filename else ""
        print(f"jpegsr: error:{place} {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _show_messages() -> None:
    """What this package reports (skipped files, where a run goes on) goes to stderr; other packages' messages do not."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jpegsr: %(message)s"))
    logger = logging.getLogger("jpegsr")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names on old disks need not be UTF-8
            stream.reconfigure(errors="surrogateescape")
    warnings.filterwarnings("ignore", module=r"(PIL|keras|tensorflow)\b")


def _make_parser(arguments: list[str]) -> tuple[ModuleType | None, argparse.ArgumentParser]:
    """The parser of all subcommands; only the module of the one that is asked for is imported."""
    parser = argparse_flags.ArgumentParser(prog="jpegsr", description=jpegsr.__doc__.splitlines()[0], inherited_absl_flags=None)
    parser.add_argument("--version", action="version", version=f"jpegsr {jpegsr.__version__}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
    chosen = None
    for name, summary in _SUBCOMMANDS.items():
        if arguments[:1] == [name]:
            chosen = importlib.import_module(f"jpegsr.cli.{name}")
            _add_subcommand(subparsers, name, summary, chosen)
        else:
            subparsers.add_parser(name, help=summary, inherited_absl_flags=None)
    return chosen, parser


def _add_subcommand(subparsers, name: str, summary: str, command: ModuleType) -> None:
    for flag_name in list(command.FLAGS):
        # argparse_flags shows only the main module's flags in --help.
        command.FLAGS[flag_name].unparse()
        command.FLAGS.register_key_flag_for_module(sys.argv[0], command.FLAGS[flag_name])
    subparser = subparsers.add_parser(
        name,
        help=summary,
        description=command.DESCRIPTION,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in command.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        inherited_absl_flags=command.FLAGS,
    )
    command.add_arguments(subparser)


def load_tensorflow() -> None:
    """Import TensorFlow without its start-up chatter, so that stderr holds what this program has to say.

    Raises:
      UserError: Keras is set to another backend.
    """
    if (backend := os.environ.get("KERAS_BACKEND", "tensorflow")) != "tensorflow":
        raise UserError(f"KERAS_BACKEND is {backend!r}: only `jpegsr train` runs on that, unset it for all else")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever keras.json says
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced_stderr():
        importlib.import_module("tensorflow")


if __name__ == "__main__":
    sys.exit(main())
