"""A served model under load: speed, memory, mixed-up answers, bad requests, and a server that is killed meanwhile.

    python benchmarks/serving_load.py [--minutes=5] [--clients=32] [--output=results/serving_load.json]

The server is the stand-in of the tests (tests/model_server.py), over the SavedModel of the shipped base x2, in a process of its
own on this machine. So the figures tell of the model's endpoints and of the client, not of TensorFlow Serving.
"""

import base64
import collections
import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import figures_file
import grpc
import numpy as np
import psutil
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageOps
from sample_photo import SAMPLE
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from jpegsr import exporting, weights

FLAGS = flags.FLAGS
flags.DEFINE_float("minutes", 5, "how long the load lasts")
flags.DEFINE_integer("clients", 32, "how many ask at a time, every second one over REST")
flags.DEFINE_integer("kills", 3, "how often the server is killed while the command `jpegsr remote` does its photos")
flags.DEFINE_integer("photos", 60, "photos that the command does")
flags.DEFINE_string("output", None, "JSON file to write")
SERVER = pathlib.Path(__file__).parent.parent / "tests" / "model_server.py"
# (width, height) of the photos: thumbnails to small photos, upright, lying and narrow.
SIZES = ((48, 48), (64, 90), (120, 80), (160, 160), (200, 133), (256, 192), (320, 40), (33, 201), (560, 500))
# The last one is more than one tile in the graph; it, and requests for tiles, are this much rarer than the others.
LARGE_SHARE = 0.02
MESSAGE_LIMIT = 64_000_000  # bytes
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Server:
    """The server process and its ports, which stay the same when it is started again."""

    def __init__(self, models: pathlib.Path):
        self._models = models
        self.port = self.rest_port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(SERVER), f"--model_base_path={self._models}", f"--port={self.port}"]
        command += [
            f"--rest_port={self.rest_port}",
            "--num_threads=2",
            "--xla_cpu_compilation_enabled",
            f"--max_message_bytes={MESSAGE_LIMIT}",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.port, self.rest_port = ports["port"], ports["rest_port"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


def make_photos() -> list[bytes]:
    """Crops of a sample photo as JPEGs, all of them different."""
    sample = Image.open(SAMPLE).convert("RGB")
    photos = []
    for i, (width, height) in enumerate(SIZES):
        buffer = io.BytesIO()
        ImageOps.fit(sample, (width + 10 * i, height)).crop((0, 0, width, height)).save(buffer, "JPEG", quality=20 + 8 * i)
        photos.append(buffer.getvalue())
    return photos


class GrpcClient:
    """Encoded photos over gRPC."""

    def __init__(self, server: Server):
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(
            grpc.insecure_channel(f"127.0.0.1:{server.port}", OPTIONS)
        )

    def ask(self, inputs: dict[str, Any], signature: str = "serving_default") -> tuple[str, Any]:
        """(status, first answer or reason)."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "jpegsr", signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=300)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        (output,) = response.outputs.values()
        return "OK", tf.make_ndarray(output)[0]


class RestClient:
    """Encoded photos over REST."""

    def __init__(self, server: Server):
        self._url = f"http://127.0.0.1:{server.rest_port}/v1/models/jpegsr:predict"

    def ask(self, inputs: dict[str, Any], signature: str = "serving_default") -> tuple[str, Any]:
        columns = {
            name: [{"b64": base64.b64encode(value).decode()} for value in values]
            if isinstance(values, list)
            else values.tolist()
            for name, values in inputs.items()
        }
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        try:
            with urllib.request.urlopen(self._url, body, timeout=300) as response:
                return "OK", base64.b64decode(json.load(response)["outputs"][0]["b64"])
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}", json.load(error)["error"]
        except (OSError, http.client.HTTPException) as error:
            return "connection closed", str(error)


@dataclasses.dataclass
class Tally:
    """What the clients have seen; added to by all of them."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    pixels: int = 0
    lost: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    mixed_up: int = 0
    tiles: int = 0
    clients_done: int = 0


def load(server: Server, photos: list[bytes], expected: list[bytes], seconds: float, tally: Tally) -> None:
    """All clients at once, each asking again as soon as it has its answer."""
    ends = time.monotonic() + seconds
    lock = threading.Lock()
    tiles = {"tiles": np.full((4, 384, 384, 3), 90, np.uint8)}
    tiles_expected = GrpcClient(server).ask(tiles, "upscale_tiles")[1]

    def client(number: int) -> None:
        chooser = random.Random(number)
        asks = (GrpcClient if number % 2 else RestClient)(server)
        while time.monotonic() < ends:
            if chooser.random() < LARGE_SHARE:
                _, answer = GrpcClient(server).ask(tiles, "upscale_tiles")
                with lock:
                    tally.tiles += 1
                    tally.mixed_up += not np.array_equal(answer, tiles_expected)
            is_large = chooser.random() < LARGE_SHARE
            index = len(photos) - 1 if is_large else chooser.randrange(len(photos) - 1)
            started = time.monotonic()
            status, answer = asks.ask({"image_bytes": [photos[index]]})
            with lock:
                if status != "OK":
                    tally.lost[f"{status}: {str(answer)[:100]}"] += 1
                    continue
                tally.seconds.append(time.monotonic() - started)
                tally.pixels += SIZES[index][0] * SIZES[index][1]
                tally.mixed_up += answer != expected[index]
        with lock:
            tally.clients_done += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(FLAGS.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bad_requests(photos: list[bytes]) -> dict[str, tuple[dict[str, Any], str, str]]:
    """Name -> (inputs, signature, the status that it must have)."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    animated, cmyk, one_pixel, huge = (io.BytesIO() for _ in range(4))
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    frames[0].convert("CMYK").save(cmyk, "JPEG")
    Image.new("RGB", (1, 1)).save(one_pixel, "PNG")
    Image.new("L", (9000, 9000)).save(huge, "PNG")

    def encoded(content: bytes) -> dict[str, Any]:
        return {"image_bytes": [content]}

    return {
        "empty": (encoded(b""), "serving_default", "refused"),
        "cut off": (encoded(photos[3][: len(photos[3]) // 2]), "serving_default", "refused"),
        "no picture": (encoded(b"a text of some length that is no picture at all"), "serving_default", "refused"),
        "animated GIF": (encoded(animated.getvalue()), "serving_default", "refused"),
        "81 megapixels": (encoded(huge.getvalue()), "serving_default", "refused"),
        "one bad among good ones": ({"image_bytes": [photos[0], photos[1][:300]]}, "serving_default", "refused"),
        "wrong type": ({"image": np.zeros((1, 8, 8, 3), np.float32) + 0.5}, "upscale", "refused"),
        "wrong shape": ({"image": np.zeros((8, 8, 3), np.uint8)}, "upscale", "refused"),
        "wrong name": ({"picture": np.zeros((1, 8, 8, 3), np.uint8)}, "upscale", "refused"),
        "CMYK": (encoded(cmyk.getvalue()), "serving_default", "OK"),
        "1x1": (encoded(one_pixel.getvalue()), "serving_default", "OK"),
    }


@contextlib.contextmanager
def bad_requests_meanwhile(server: Server, photos: list[bytes]) -> Iterator[dict[str, dict[str, int]]]:
    """Send bad requests in turn while the block runs; yields name -> status -> how often."""
    seen: dict[str, dict[str, int]] = {}
    stop = threading.Event()

    def send() -> None:
        clients, requests = (GrpcClient(server), RestClient(server)), bad_requests(photos)
        while not stop.is_set():
            for name, (inputs, signature, _) in requests.items():
                for asks in clients:
                    status, reason = asks.ask(inputs, signature)
                    if not len(reason):
                        status += " without a reason"
                    counts = seen.setdefault(name, {})
                    counts[status] = counts.get(status, 0) + 1
                if stop.wait(0.2):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def warm_up(server: Server, photos: list[bytes], expected: list[bytes]) -> None:
    """Half a minute of load, and the most that two requests at a time can take: large photos and tiles."""
    large: list[tuple[dict[str, Any], str]] = [
        ({"image_bytes": photos[-1:]}, "serving_default"),
        ({"tiles": np.zeros((4, 384, 384, 3), np.uint8)}, "upscale_tiles"),
    ]
    for inputs, signature in large:
        threads = [threading.Thread(target=GrpcClient(server).ask, args=(inputs, signature)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    load(server, photos, expected, 30, Tally())


@contextlib.contextmanager
def memory_meanwhile(server: Server) -> Iterator[list[int]]:
    """The server's resident megabytes, measured every half minute while the block runs, at its start and at its end."""
    samples: list[int] = []
    stop = threading.Event()

    def measure() -> None:
        while True:
            samples.append(server.resident_bytes() // 1_000_000)
            if stop.wait(30):
                samples.append(server.resident_bytes() // 1_000_000)
                return

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def check_statuses(seen: dict[str, dict[str, int]], photos: list[bytes]) -> bool:
    """Whether each bad request had the status that it must have, every time."""
    wanted = {"refused": {"INVALID_ARGUMENT", "HTTP 400"}, "OK": {"OK"}}
    return all(set(seen.get(name, ())) == wanted[status] for name, (_, _, status) in bad_requests(photos).items())


def kill_meanwhile(server: Server, photos: list[bytes], expected: list[bytes], folder: pathlib.Path) -> dict[str, Any]:
    """`jpegsr remote` over many photos while the server is killed and started again."""
    source, target = folder / "photos", folder / "results"
    source.mkdir()
    for i in range(FLAGS.photos):
        (source / f"{i:03}.jpg").write_bytes(photos[i % len(photos)])
    command = [sys.executable, "-m", "jpegsr.cli.main", "remote", str(source), f"--output_dir={target}"]
    command += [f"--server=127.0.0.1:{server.port}", "--in_flight=8", "--max_retries=20"]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        for number in range(FLAGS.kills):
            while len(list(target.glob("*.png"))) < (number + 1) * FLAGS.photos // (FLAGS.kills + 2) and client.poll() is None:
                time.sleep(0.02)
            server.kill()
            time.sleep(1)
            server.start()
        output, _ = client.communicate()
    right = 0
    for i in range(FLAGS.photos):
        path = target / f"{i:03}.png"
        reference = np.asarray(Image.open(io.BytesIO(expected[i % len(photos)])))
        right += path.is_file() and int(np.abs(np.asarray(Image.open(path)).astype(int) - reference).max()) <= 1
    return {
        "photos": FLAGS.photos,
        "kills": FLAGS.kills,
        "right_results": right,
        "exit_status": client.returncode,
        "seconds": round(time.monotonic() - started, 1),
        "last_line": output.strip().splitlines()[-1],
    }


def oversize(server: Server) -> dict[str, str]:
    """A request above the server's message limit, over both protocols."""
    content = {"image_bytes": [bytes(MESSAGE_LIMIT + 1)]}
    return {name: make(server).ask(content)[0] for name, make in (("grpc", GrpcClient), ("rest", RestClient))}


def run(folder: pathlib.Path) -> dict[str, Any]:
    exporting.export(weights.load("base", 2), folder / "models")
    server = Server(folder / "models")
    try:
        photos = make_photos()
        expected = [GrpcClient(server).ask({"image_bytes": [photo]})[1] for photo in photos]
        assert len({hashlib.sha256(answer).digest() for answer in expected}) == len(photos)
        warm_up(server, photos, expected)
        tally, started = Tally(), time.monotonic()
        with bad_requests_meanwhile(server, photos) as seen, memory_meanwhile(server) as megabytes:
            load(server, photos, expected, 60 * FLAGS.minutes, tally)
        elapsed = time.monotonic() - started
        quantiles = np.quantile(tally.seconds, [0.5, 0.95, 0.99])
        return {
            "clients": FLAGS.clients,
            "minutes": FLAGS.minutes,
            "answers": len(tally.seconds),
            "answers_per_second": round(len(tally.seconds) / elapsed, 2),
            "megapixels_per_second": round(tally.pixels / 1e6 / elapsed, 3),
            "seconds": {name: round(float(value), 2) for name, value in zip(("p50", "p95", "p99"), quantiles, strict=True)},
            "lost": dict(tally.lost),
            "mixed_up": tally.mixed_up,
            "clients_that_went_on_to_the_end": tally.clients_done,
            "requests_for_tiles": tally.tiles,
            "resident_megabytes_every_half_minute": megabytes,
            "bad_requests": seen,
            "bad_requests_had_the_right_status": check_statuses(seen, photos),
            "request_above_the_message_limit": oversize(server),
            "killed_and_started_again": kill_meanwhile(server, photos, expected, folder),
        }
    finally:
        server.kill()


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        figures = run(pathlib.Path(name))
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        protocol = "base x2, stand-in server of the tests (2 requests at work at a time, one in the model), all on one machine"
        figures_file.write(FLAGS.output, protocol, figures)


if __name__ == "__main__":
    app.run(main)
