"""What lies in serving/: the configuration files by their protos, and the README's requests against a running server."""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from google.protobuf import text_format
from model_server import ModelServer
from PIL import Image
from tensorflow_serving.config import model_server_config_pb2

from jpegsr import exporting, weights
from jpegsr.endpoints import ServingOptions
from jpegsr.enhancement import Enhancer

ROOT = pathlib.Path(__file__).parent.parent
SERVING = ROOT / "serving"


def model_config() -> model_server_config_pb2.ModelConfig:
    text = (SERVING / "models.config").read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    return config


def test_model_configuration():
    config = model_config()
    assert (config.name, config.base_path) == ("jpegsr", "/models/jpegsr")
    assert dict(config.version_labels) == {"stable": 1, "canary": 2}
    assert config.model_version_policy.WhichOneof("policy_choice") == "all"


def test_batches_have_the_size_of_an_export():
    """The protos of this file and of monitoring.config are in no package, so only the numbers are looked at."""
    text = (SERVING / "batching.config").read_text()
    sizes = re.findall(r"^(?:max_batch_size \{ value: (\d+) \}|allowed_batch_sizes: (\d+))$", text, re.MULTILINE)
    assert [int(first or second) for first, second in sizes] == [ServingOptions().tile_batch] * 2


def test_compose_file_mounts_what_is_there():
    compose = (SERVING / "compose.yaml").read_text()
    for flag, name in re.findall(r"--(\w+_config_file)=/config/([\w.]+)", compose):
        assert (SERVING / name).is_file(), flag
    assert "..:" not in compose
    assert "../exported/base}:/models/jpegsr:ro" in compose


@contextlib.contextmanager
def serving(models: pathlib.Path) -> Iterator[ModelServer]:
    config = model_config()
    config.base_path = str(models)
    with ModelServer([config], labels_before_load=True) as server:
        yield server


def commands(server: ModelServer) -> list[str]:
    """The README's commands that talk to a server, sent to this one."""
    readme = (SERVING / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n(?! )", block.strip())]
    ports = {"localhost:8500": f"127.0.0.1:{server.port}", "localhost:8501": f"127.0.0.1:{server.rest_port}"}
    for name, address in ports.items():
        lines = [line.replace(name, address) for line in lines]
    return [line for line in lines if "127.0.0.1" in line]


def test_requests_of_the_readme(tiny_run, tmp_path):
    trained = weights.load(str(tiny_run))
    for _ in range(2):
        exporting.export(trained, tmp_path / "models", options=ServingOptions(tile_size=64, tile_batch=2))
    os.symlink(ROOT / "samples", tmp_path / "samples")
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with serving(tmp_path / "models") as server:
        todo = commands(server)
        assert len(todo) == 5
        for command in todo:
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert result.returncode == 0, (command, result.stderr)
            if command.startswith("curl"):
                assert '"AVAILABLE"' in result.stdout
    expected = Enhancer(str(tiny_run), runtime="tensorflow").enhance(str(ROOT / "samples" / "cat.jpg"))
    results = ["cat_x2.png", "cat_canary.png", "samples_x2/cat.png"]
    for name in results:
        difference = np.abs(np.asarray(Image.open(tmp_path / name)).astype(int) - expected)
        assert difference.max() <= 1, name
    assert Image.open(tmp_path / "coffee_x2.png").size == tuple(
        2 * side for side in Image.open(ROOT / "samples/coffee.jpg").size
    )


def test_no_port_is_open_to_the_network():
    published = re.findall(r'- "(\S+):(85\d\d):(85\d\d)"', (SERVING / "compose.yaml").read_text())
    assert published == [("127.0.0.1", "8500", "8500"), ("127.0.0.1", "8501", "8501")]
