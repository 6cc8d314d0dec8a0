"""Apache Beam's runners and their options, from flags."""

import contextlib
import io
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from jpegsr.errors import UserError

# Beam's own runner for one machine. Its DirectRunner is a choice of others, one of which it would have to download.
LOCAL_RUNNER = "FnApiRunner"
# These ask a server for the options that it has.
_PORTABLE_RUNNERS = ("portablerunner", "flinkrunner", "sparkrunner", "prismrunner")


def parse(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from its flags; `UserError` for one that Beam does not have, or a wrong value."""
    for i, argument in enumerate(arguments):
        is_value = i > 0 and arguments[i - 1].startswith("--") and "=" not in arguments[i - 1]
        if not argument.startswith("--") and not is_value:
            raise UserError(f"what is {argument!r}? Photos are named by --photos, --file_list or --tfrecord")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            options = PipelineOptions(arguments)
            given = options.get_all_options(retain_unknown_options=True)
    except SystemExit:  # argparse
        raise UserError(f"Apache Beam: {messages.getvalue().strip().splitlines()[-1].partition('error: ')[2]}") from None
    unknown = sorted(set(given) - set(PipelineOptions([]).get_all_options()))
    if unknown and not _runner_of(options).lower().endswith(_PORTABLE_RUNNERS):
        raise UserError(f"neither `jpegsr batch` nor Apache Beam has a flag --{unknown[0]}: see `jpegsr batch --help`")
    return options


def _runner_of(options: PipelineOptions) -> str:
    return options.view_as(StandardOptions).runner or LOCAL_RUNNER


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline on the runner that the options name; `UserError` if that cannot be used."""
    runner = _runner_of(options)
    if runner == LOCAL_RUNNER:
        return beam.Pipeline(_local_runner(options), options)
    try:
        return beam.Pipeline(options=options)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"cannot use --runner={runner}: {error}") from None


def _local_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """The runner, with what it has to hand on to worker processes: it would not by itself.

    What goes wrong there is raised here, and need not be logged besides.
    """
    workers = options.view_as(WorkerOptions)
    workers.default_sdk_harness_log_level = workers.default_sdk_harness_log_level or "CRITICAL"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision))
