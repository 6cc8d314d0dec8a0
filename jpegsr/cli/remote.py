"""`jpegsr remote`: what `enhance` does, with the network on a TensorFlow Serving server."""

import argparse

from absl import flags

from jpegsr.cli import photo_files
from jpegsr.errors import UserError

DESCRIPTION = """Remove the JPEG artifacts of photos and enlarge them, with the network on a TensorFlow Serving server.

PHOTO, the results and what is kept of a photo are as in `jpegsr enhance`, except that the server works in 8 bits. The server's
model must have been written by `jpegsr export`; it decides how many times larger the results are, and restores at
--scale=1 with its own first half, where `jpegsr enhance --scale=1` has weights for that alone. While nothing answers,
requests are sent again, so that a server may be restarted under way."""
EXAMPLES = (
    "jpegsr remote photo.jpg --server=localhost:8500                     # writes photo_x2.png",
    "jpegsr remote photo.jpg --server=localhost:8501 --protocol=rest",
    "jpegsr remote photo.jpg -o clean.jpg --server=localhost:8500 --scale=1",
    "jpegsr remote album/ --output_dir=album_x2 --server=gpu.example.org:8500 --tls --in_flight=8",
)

FLAGS = flags.FlagValues()
flags.DEFINE_string("server", None, "HOST:PORT of the server (required)", flag_values=FLAGS)
flags.DEFINE_enum("protocol", "grpc", ["grpc", "rest"], "of the port; gRPC is the faster one", flag_values=FLAGS)
flags.DEFINE_string("model_name", "jpegsr", "of the model, as configured on the server", flag_values=FLAGS)
flags.DEFINE_integer("model_version", None, "of the model (default: the newest)", flag_values=FLAGS)
flags.DEFINE_string("version_label", None, "a version by the label that the server's configuration gives it", flag_values=FLAGS)
flags.DEFINE_integer("scale", None, "1 to restore only (default: what the model does)", flag_values=FLAGS)
photo_files.define_output_flags(FLAGS)
flags.DEFINE_integer("in_flight", 2, "photos worked on at a time, each with up to two requests", flag_values=FLAGS)
flags.DEFINE_float("deadline", 300.0, "seconds that a request may take; it is then sent once more", flag_values=FLAGS)
flags.DEFINE_integer("max_retries", 10, "of a request to which no server answers, with growing pauses", flag_values=FLAGS)
flags.DEFINE_bool("tls", False, "encrypt the connection", flag_values=FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    photo_files.add_photo_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from jpegsr import files, remote, servers
    from jpegsr.cli.main import load_tensorflow

    if FLAGS.in_flight < 1:
        raise UserError(f"--in_flight={FLAGS.in_flight} is not above zero")
    if not FLAGS.server:
        raise UserError("name the server with --server=HOST:PORT")
    server = servers.Server(FLAGS.server, FLAGS.model_name, FLAGS.model_version, FLAGS.version_label, FLAGS.deadline, FLAGS.tls)
    work, file_settings = photo_files.Batch(FLAGS, arguments.photos), photo_files.file_settings(FLAGS)
    if FLAGS.protocol == "grpc":
        load_tensorflow()
    network = remote.connect(server, FLAGS.scale, FLAGS.protocol, FLAGS.max_retries)
    jobs, failures = work.jobs(f"_x{network.scale}")
    enhancers = files.Enhancers(files.Settings(model=network, **file_settings))
    return work.run(jobs, failures, enhancers, FLAGS.in_flight)
