"""`jpegsr remote` against a real model on the stand-in for TensorFlow Serving, over both protocols."""

import concurrent.futures
import csv
import dataclasses
import functools
import http.server
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from conftest import run_python
from model_server import ModelServer
from PIL import Image
from served_models import WARMUP_FILE, ServingError, Version
from tensorflow_serving.config import model_server_config_pb2

from jpegsr import files, remote, serving, weights
from jpegsr.cli.main import main
from jpegsr.endpoints import ServingOptions
from jpegsr.enhancement import Enhancer
from jpegsr.errors import UserError
from jpegsr.servers import Server

PROTOCOLS = ("grpc", "rest")
WITHOUT_COMPILER = "XLA compilation disabled"
SERVER_PROGRAM = pathlib.Path(__file__).with_name("model_server.py")


@pytest.fixture(scope="module")
def model_folder(served_model, tmp_path_factory) -> pathlib.Path:
    """The model without warm-up, so that servers start soon."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(served_model, folder / "1", ignore=shutil.ignore_patterns(WARMUP_FILE.name))
    return folder


def start(model_folder: pathlib.Path, **options) -> ModelServer:
    return ModelServer([model_server_config_pb2.ModelConfig(name="jpegsr", base_path=str(model_folder))], **options)


@pytest.fixture(scope="module")
def server(model_folder):
    with start(model_folder) as server:
        yield server


@pytest.fixture(scope="module")
def narrow_server(model_folder):
    """One request at a time, and none above 60 kB."""
    with start(model_folder, num_threads=1, max_message_bytes=60_000) as server:
        yield server


def address(server: ModelServer, protocol: str) -> str:
    return f"127.0.0.1:{server.port if protocol == 'grpc' else server.rest_port}"


def flags(server: ModelServer, protocol: str = "grpc") -> list[str]:
    return [f"--server={address(server, protocol)}", f"--protocol={protocol}"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def small_requests(monkeypatch):
    """Pictures are cut as if they were large ones: tiles of 48 x 48 by threes, or of up to 2500 pixels."""
    monkeypatch.setattr(remote, "MAX_REQUEST_PIXELS", 50 * 50)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(40), slice(30)), (slice(131), slice(97)), (slice(48), slice(48)), (slice(20), slice(400)), (slice(1), slice(1))],
    ids=["smaller than a tile", "several tiles", "one tile", "panorama", "pixel"],
)
def test_the_result_is_that_of_the_local_network(server, tiny_run, photo, small_requests, protocol, scale, rows, columns):
    expected = Enhancer(str(tiny_run), scale, "tensorflow").enhance(photo[rows, columns])
    network = remote.connect(Server(address(server, protocol)), None if scale == 2 else scale, protocol)
    assert network.scale == scale
    result = Enhancer(network).enhance(photo[rows, columns])
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("num_rows", [20, 131])
def test_gray_parts_of_a_colour_photo_are_no_gray_photos(server, tiny_run, photo, small_requests, protocol, num_rows):
    picture = photo[:num_rows, :400].copy()
    picture[:, :300] = picture[:, :300, 1:2]
    expected = Enhancer(str(tiny_run), runtime="tensorflow").enhance(picture)
    assert (expected[:, :500, :1] != expected[:, :500]).any()  # the network tints them, everywhere or nowhere
    result = Enhancer(remote.connect(Server(address(server, protocol)), protocol=protocol)).enhance(picture)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_tiles_of_one_picture_share_requests(server, photo, small_requests):
    network = remote.connect(Server(address(server, "grpc")))
    shapes = []

    def run(pixels, strength):
        shapes.append(pixels.shape)
        return network.run(pixels, strength)

    Enhancer(dataclasses.replace(network, run=run)).enhance(photo[:131, :130])
    assert sorted(shapes) == [(1, 48, 48, 3)] + [(3, 48, 48, 3)] * 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["gray", "alpha", "16 bits", "gray with alpha"])
def test_gray_alpha_and_depth_are_kept(server, tiny_run, photo, tmp_path, small_requests, capsys, protocol, kind):
    picture = photo[:70, :90]
    alpha = np.linspace(0, 255, 90, dtype=np.uint8)[None, :, None].repeat(70, 0)
    pictures = {
        "gray": picture[..., 1],
        "alpha": np.concatenate([picture, alpha], 2),
        "16 bits": picture[..., 1].astype(np.uint16) * 257,
        "gray with alpha": np.concatenate([picture[..., :1], alpha], 2),
    }
    Image.fromarray(pictures[kind]).save(tmp_path / "photo.png")
    command = ["remote", str(tmp_path / "photo.png"), "-o", str(tmp_path / "remote.png"), *flags(server, protocol)]
    assert main(command) == 0
    warning = f"jpegsr: {tmp_path / 'photo.png'}: the network rounds its 16 bits to 8\n"
    assert capsys.readouterr().err == (warning if kind == "16 bits" else "")
    assert main(["enhance", str(tmp_path / "photo.png"), "-o", str(tmp_path / "local.png"), f"--model={tiny_run}"]) == 0
    result, expected = (Image.open(tmp_path / f"{name}.png") for name in ("remote", "local"))
    assert (result.mode, result.size) == (expected.mode, expected.size)
    unit = 257 if kind == "16 bits" else 1
    assert np.abs(np.asarray(result).astype(int) - np.asarray(expected)).max() <= unit


def make_album(folder: pathlib.Path, photo: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Photos of mixed sizes, each unlike the others; name -> pixels."""
    folder.mkdir()
    pictures = {}
    for i in range(count):
        pictures[f"{i:02}"] = np.ascontiguousarray(photo[5 * i : 5 * i + 40 + i, 7 * i : 7 * i + 60 + 3 * (i % 5)])
        Image.fromarray(pictures[f"{i:02}"]).save(folder / f"{i:02}.png")
    return pictures


def assert_results(folder: pathlib.Path, pictures: dict[str, np.ndarray], tiny_run: pathlib.Path) -> None:
    """Every photo has its own result."""
    enhancer = Enhancer(str(tiny_run), runtime="tensorflow")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in pictures)
    for name, picture in pictures.items():
        result = np.asarray(Image.open(folder / f"{name}.png")).astype(int)
        assert np.abs(result - enhancer.enhance(picture)).max() <= 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_files_at_a_time(server, tiny_run, photo, tmp_path, capsys, small_requests, protocol):
    album, out, manifest = tmp_path / "album", tmp_path / "out", tmp_path / "manifest.csv"
    pictures = make_album(album, photo, 9)
    (album / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    command = ["remote", str(album), f"--output_dir={out}", f"--manifest={manifest}", "--in_flight=5", *flags(server, protocol)]
    assert main(command) == 1
    output = capsys.readouterr()
    assert "9 done, 0 skipped, 1 failed" in output.out
    assert "broken.jpg" in output.err
    with open(manifest, newline="") as file:
        rows = {pathlib.Path(row["input"]).stem: row["status"] for row in csv.DictReader(file)}
    assert rows == {**dict.fromkeys(pictures, "done"), "broken": "failed"}
    assert_results(out, pictures, tiny_run)
    (album / "broken.jpg").unlink()
    assert main(command) == 0
    assert "0 done, 9 skipped, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_comes_late_is_waited_for(model_folder, photo, tmp_path, capsys, protocol):
    Image.fromarray(photo[:30, :40]).save(tmp_path / "photo.png")
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        command = ["remote", str(tmp_path / "photo.png"), f"--server=127.0.0.1:{port}", f"--protocol={protocol}"]
        status = pool.submit(main, command)
        time.sleep(0.5)
        with start(model_folder, **{"port" if protocol == "grpc" else "rest_port": port}):
            assert status.result(60) == 0
    assert "trying again" in capsys.readouterr().err
    assert (tmp_path / "photo_x2.png").is_file()


def test_a_restart_under_load_costs_no_file(model_folder, tiny_run, photo, tmp_path, small_requests):
    """The server is killed with requests in it, of both protocols, and another one started in its place."""
    pictures = make_album(tmp_path / "album", photo, 24)
    command = [sys.executable, str(SERVER_PROGRAM), f"--model_base_path={model_folder}", "--xla_cpu_compilation_enabled"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ports = json.loads(process.stdout.readline())
    places = {"grpc": f"127.0.0.1:{ports['port']}", "rest": f"127.0.0.1:{ports['rest_port']}"}

    def enhance_all(protocol: str) -> list[str]:
        enhancers = files.Enhancers(files.Settings(model=remote.connect(Server(places[protocol]), protocol=protocol)))
        jobs, _ = files.list_jobs([str(tmp_path / "album")], str(tmp_path / protocol), ".png", "")
        return [outcome.status for outcome in files.run_jobs(jobs, enhancers, 4, lambda _: None)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = [pool.submit(enhance_all, protocol) for protocol in PROTOCOLS]
        deadline = time.monotonic() + 60
        while max(num_done := [len(list((tmp_path / protocol).glob("*.png"))) for protocol in PROTOCOLS]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with start(model_folder, port=ports["port"], rest_port=ports["rest_port"]):
            assert [result.result(60) for result in results] == [["done"] * 24] * 2
    assert max(num_done) < 24
    for protocol in PROTOCOLS:
        assert_results(tmp_path / protocol, pictures, tiny_run)


def one_line(capsys, arguments: list[str]) -> str:
    """What a command that must fail says on stderr."""
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mistakes_are_one_line(server, photo, tmp_path, capsys, protocol):
    Image.fromarray(photo[:30, :40]).save(tmp_path / "photo.png")
    command = ["remote", str(tmp_path / "photo.png"), *flags(server, protocol)]
    not_found = "NOT_FOUND" if protocol == "grpc" else "HTTP 404"
    invalid = "INVALID_ARGUMENT" if protocol == "grpc" else "HTTP 400"
    for extra, words in {
        "--model_name=other": f"the server says {not_found}: Servable not found for request: Latest(other)",
        "--model_version=7": f"the server says {not_found}: Servable not found for request: Specific(jpegsr, 7)",
        "--version_label=stable": f"the server says {invalid}: Unrecognized servable version label: stable",
        "--scale=3": "enlarges 2 times, not 3",
        "--jpeg_quality=0": "--jpeg_quality=0",
        "--max_pixels=100": "above --max_pixels=100",
    }.items():
        assert words in one_line(capsys, [*command, extra])
    nobody = f"127.0.0.1:{free_port()}"
    line = one_line(capsys, [*command[:2], f"--server={nobody}", f"--protocol={protocol}", "--max_retries=0"])
    assert line.startswith(f"jpegsr: error: no server answers at {nobody} (1 attempt): ")
    assert "refused" in line
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--server=HOST:PORT"),
        (["--server=localhost"], "not HOST:PORT"),
        (["--server=http://localhost:80"], "not HOST:PORT"),
        (["--server=localhost:99999"], "not HOST:PORT"),
        (["--server=a..b:80"], "not HOST:PORT"),
        (["--server=localhost:80", "--in_flight=0"], "--in_flight=0"),
        (["--server=localhost:80", "--deadline=0"], "--deadline=0"),
        (["--server=localhost:80", "--max_retries=-1"], "--max_retries=-1"),
        (["--server=localhost:80", "--model_version=1", "--version_label=x"], "give one of them"),
        (["--server=localhost:80", "-o", "a.png", "--output_dir=b"], "not both"),
    ],
)
def test_flags_that_make_no_sense(capsys, arguments, words):
    assert words in one_line(capsys, ["remote", "photo.png", *arguments])


def test_what_answers_is_no_tensorflow_serving(photo, tmp_path, capsys):
    Image.fromarray(photo[:30, :40]).save(tmp_path / "photo.png")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=functools.partial(other.serve_forever, 0.05), daemon=True).start()
        command = ["remote", str(tmp_path / "photo.png"), f"--server=127.0.0.1:{other.server_port}", "--max_retries=0"]
        assert main([*command, "--protocol=rest"]) == 1
        assert "is no TensorFlow Serving" in capsys.readouterr().err
        assert main(command) == 1
        other.shutdown()
    assert "jpegsr: error: no server answers" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_without_answer_is_sent_once_more(narrow_server, photo, protocol):
    network = remote.connect(Server(address(narrow_server, protocol), deadline=0.4), protocol=protocol)
    enhancer = Enhancer(network)
    with narrow_server.place():  # something else keeps the model busy
        started = time.monotonic()
        with pytest.raises(UserError, match=r"within --deadline=0.4 seconds, twice"):
            enhancer.enhance(photo[:20, :20])
        assert 0.8 <= time.monotonic() - started < 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_closing_ends_requests_at_once(narrow_server, photo, small_requests, protocol):
    network = remote.connect(Server(address(narrow_server, protocol)), protocol=protocol)
    enhancer = Enhancer(network)
    assert enhancer.enhance(photo[:20, :20]).shape == (40, 40, 3)
    with narrow_server.place(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(enhancer.enhance, photo[:131, :130])  # more requests than are under way at a time
        time.sleep(0.2)
        network.close()
        with pytest.raises(UserError, match="no server answers"):
            waiting.result(5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_server_refuses_fails_that_file_alone(narrow_server, photo, tmp_path, capsys, protocol):
    album, out = tmp_path / "album", tmp_path / "out"
    make_album(album, photo, 2)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(album / "large.png")
    assert main(["remote", str(album), f"--output_dir={out}", *flags(narrow_server, protocol)]) == 1
    output = capsys.readouterr()
    assert "2 done, 0 skipped, 1 failed" in output.out
    errors = [line for line in output.err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert f"cannot enhance {str(album / 'large.png')!r}: the server says" in errors[0]
    assert ("RESOURCE_EXHAUSTED" if protocol == "grpc" else "HTTP 413") in errors[0]


def test_requests_stay_within_what_the_model_takes(served_model, tiny_run, photo, tmp_path):
    options = ServingOptions(tile_size=48, tile_batch=3, max_pixels=5000)
    serving.write_saved_model(weights.load(str(tiny_run)), tmp_path / "models" / "1", options)
    expected = Enhancer(str(tiny_run), runtime="tensorflow").enhance(photo[:90, :100])
    with start(tmp_path / "models") as server:
        for protocol in PROTOCOLS:
            result = Enhancer(remote.connect(Server(address(server, protocol)), protocol=protocol)).enhance(photo[:90, :100])
            assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_server_that_does_not_compile_enlarges_all_the_same(
    model_folder, tiny_run, photo, small_requests, caplog, monkeypatch
):
    predict = Version.predict

    def predict_without_compiler(version: Version, signature_name: str, *rest):
        if signature_name == "upscale_tiles":
            raise ServingError("INTERNAL", WITHOUT_COMPILER)
        return predict(version, signature_name, *rest)

    monkeypatch.setattr(Version, "predict", predict_without_compiler)
    with caplog.at_level("WARNING"), start(model_folder) as server:
        result = Enhancer(remote.connect(Server(address(server, "grpc")))).enhance(photo[:131, :130])
    expected = Enhancer(str(tiny_run), runtime="tensorflow").enhance(photo[:131, :130])
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert "does not compile" in caplog.text


def test_tensorflow_without_compiler_refuses_tiles_in_these_words(model_folder):
    """One request, in a process of its own: it cannot be given its compiler back."""
    program = f"""
import pathlib, sys
sys.path.insert(0, {str(SERVER_PROGRAM.parent)!r})
import numpy as np, tensorflow as tf
from model_server import disable_xla
from served_models import ServingError, Version, serving_errors
disable_xla()
version = Version(pathlib.Path({str(model_folder / "1")!r}))
shape = version.signatures["upscale_tiles"].inputs["tiles"].tensor_shape
try:
    with serving_errors():
        version.predict("upscale_tiles", {{"tiles": np.zeros(tf.TensorShape(shape), np.uint8)}})
except ServingError as error:
    print(error.code, error.message)
"""
    assert run_python("-c", program).stdout.startswith(f"INTERNAL {WITHOUT_COMPILER}")


def test_a_proxy_without_its_server_is_waited_for(server, photo):
    """502 twice, as from a proxy in front of a server that restarts, then what the server says."""
    refusals = iter([True, True])

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if next(refusals, False):
                self.send_error(502)
                return
            with urllib.request.urlopen(f"http://{address(server, 'rest')}{self.path}", body) as answer:
                content = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=functools.partial(proxy.serve_forever, 0.05), daemon=True).start()
        network = remote.connect(Server(f"127.0.0.1:{proxy.server_port}"), protocol="rest")
        assert Enhancer(network).enhance(photo[:20, :30]).shape == (40, 60, 3)
        proxy.shutdown()
    assert next(refusals, None) is None


def test_a_network_has_its_own_scale_and_strength(server, photo):
    network = remote.connect(Server(address(server, "rest")), protocol="rest")
    with pytest.raises(UserError, match="enlarges 2 times, not 3"):
        Enhancer(network, 3)
    with pytest.raises(UserError, match="strength"):
        Enhancer(network, strength=0.5).enhance(photo[:20, :20])


def test_rest_imports_no_tensorflow_and_streams(server, photo, tmp_path):
    Image.fromarray(photo[:30, :40]).save(tmp_path / "photo.png")
    arguments = ["remote", str(tmp_path / "photo.png"), "-o", str(tmp_path / "out.webp"), *flags(server, "rest")]
    program = (
        f"import sys; from jpegsr.cli.main import main; assert main({arguments!r}) == 0;"
        "print([name for name in ('tensorflow', 'keras', 'grpc') if name in sys.modules])"
    )
    assert run_python("-c", program).stdout.splitlines()[-1] == "[]"
    command = [sys.executable, "-m", "jpegsr.cli.main", "remote", "-", "--format=webp", *flags(server, "rest")]
    result = subprocess.run(command, input=(tmp_path / "photo.png").read_bytes(), capture_output=True, check=True)
    assert result.stdout == (tmp_path / "out.webp").read_bytes()


def test_ctrl_c_ends_a_stream_at_once(narrow_server, photo, tmp_path):
    Image.fromarray(photo[:30, :40]).save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "jpegsr.cli.main", "remote", "-", *flags(narrow_server, "rest")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write((tmp_path / "photo.png").read_bytes())
    process.stdin.flush()
    time.sleep(3)  # it has asked what the model is
    with narrow_server.place():
        process.stdin.close()
        process.stdin = None
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_ctrl_c_ends_it_at_once(narrow_server, photo, tmp_path):
    make_album(tmp_path / "album", photo, 20)
    out = tmp_path / "out"
    command = ["remote", str(tmp_path / "album"), f"--output_dir={out}", *flags(narrow_server, "rest")]
    process = subprocess.Popen([sys.executable, "-m", "jpegsr.cli.main", *command], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.005)
    with narrow_server.place():  # no request is answered from here on
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert 0 < len(list(out.iterdir())) < 20
    for path in out.iterdir():
        Image.open(path).load()
