"""`jpegsr demo`: what `enhance` does, on a page in the browser."""

import argparse
import contextlib
import importlib.util
import signal
import threading

from absl import flags

from jpegsr.cli import enhancer_flags, settings
from jpegsr.config import DemoConfig
from jpegsr.errors import UserError

DESCRIPTION = """Serve a page to try jpegsr on: drop a photo, compare before and after, download the result. Or make a clean
photo worse there, and see what each model gets back.

The page works without network and is for this machine alone unless --host says otherwise. Photos are deleted when their page
is closed, and all of them when the server ends (Ctrl-C)."""
EXAMPLES = (
    "jpegsr demo                                  # then open the address that it prints",
    "jpegsr demo --open_browser --models=base,runs/mine",
    "jpegsr demo --host=0.0.0.0 --port=8080       # for all who reach this machine",
)

FLAGS = flags.FlagValues()
flags.DEFINE_list(
    "models", None, "shipped names, .keras files or folders of training runs (default: all that are shipped)", flag_values=FLAGS
)
enhancer_flags.define_runtime(FLAGS)
settings.define(FLAGS, DemoConfig(), "default")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no positional arguments."""


def run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise UserError("`jpegsr demo` needs Gradio: pip install 'jpegsr[web]'")
    from jpegsr import demo, demo_work
    from jpegsr.cli.main import load_tensorflow

    config = settings.override(FLAGS, DemoConfig())
    models = demo_work.Models(FLAGS.models or demo_work.shipped_models(), FLAGS.runtime, FLAGS.device)
    if "tensorflow" in models.runtime_names():
        load_tensorflow()
    first = models.names[0]
    models.network(first, models.default_scale(first))  # what is broken shows here, and the first photo need not wait
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with demo.served(models, config) as url:
        print(f"jpegsr demo at {url} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            stop.wait()
    return 0
