"""Several training processes on the loopback device, as on several machines with a disk that they share."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from jpegsr import training, weights
from jpegsr.cli.main import main
from jpegsr.workers import PeerLostError

FLAGS = [
    "train",
    "--preset=tiny",
    "--stage=joint",
    "--steps=50",
    "--batch_size=8",
    "--warmup_steps=5",
    "--validate_every=25",
    "--checkpoint_every=5",
    "--holdout_every=5",
    "--deterministic",
]
# The command line, keeping what every step returns.
RECORDING_PROGRAM = """
import sys
import numpy as np
from jpegsr.cli.main import load_tensorflow, main
load_tensorflow()
from jpegsr import training
values, make_step = [], training.StageTrainer.make_step

def make_recording_step(trainer):
    step = make_step(trainer)
    def recording_step(patch):
        values.append(step(patch))
        return values[-1]
    return recording_step

training.StageTrainer.make_step = make_recording_step
status = main(sys.argv[2:])
np.save(sys.argv[1], [value.numpy() for value in values])
sys.exit(status)
"""


def free_ports() -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


class Cluster:
    """Two workers; as a supervisor does, it starts anew what ends with a status other than 0."""

    def __init__(self, folder: pathlib.Path, *command: str):
        self.statuses: list[list[int]] = [[], []]
        self.output = [folder / f"worker{index}.txt" for index in (0, 1)]
        self._command = command
        self._ports = free_ports()
        self.processes = [self._start(index) for index in (0, 1)]

    def _start(self, index: int) -> subprocess.Popen:
        config = {
            "cluster": {"worker": [f"localhost:{port}" for port in self._ports]},
            "task": {"type": "worker", "index": index},
        }
        with self.output[index].open("a") as output:
            return subprocess.Popen(
                [sys.executable, *(part.format(index=index) for part in self._command)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
            )

    def supervise(self, until) -> None:
        """Restart what fails until `until()`."""
        deadline = time.monotonic() + 240
        while not until():
            assert time.monotonic() < deadline, "\n".join(path.read_text()[-2000:] for path in self.output)
            for index, process in enumerate(self.processes):
                if process.poll():
                    self.statuses[index].append(process.returncode)
                    self.processes[index] = self._start(index)
            time.sleep(0.05)

    def is_done(self) -> bool:
        return all(process.poll() == 0 for process in self.processes)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def start_cluster(tmp_path):
    clusters = []

    def start(*command: str) -> Cluster:
        clusters.append(Cluster(tmp_path, *command))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.stop()


def last_step(run: pathlib.Path) -> int:
    path = tf.train.latest_checkpoint(str(run / "joint" / "checkpoints"))
    return int(path.rpartition("-")[2]) if path else 0


def last_state(run: pathlib.Path) -> dict[str, np.ndarray]:
    """All numbers of the last checkpoint but the time it took."""
    reader = tf.train.load_checkpoint(str(run / "joint" / "checkpoints"))
    names = (name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name and "seconds" not in name)
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def single(tmp_path_factory, photo_folder):
    """(run folder, what every step returned, `[50, 3]`) of one process."""
    run = tmp_path_factory.mktemp("single")
    values, make_step = [], training.StageTrainer.make_step

    def make_recording_step(trainer):
        step = make_step(trainer)

        def recording_step(patch):
            values.append(step(patch))
            return values[-1]

        return recording_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.StageTrainer, "make_step", make_recording_step)
        assert main([*FLAGS, f"--data={photo_folder}", f"--output_dir={run}"]) == 0
    return run, np.array([value.numpy() for value in values])


def test_workers_learn_what_one_process_learns_and_survive_kills(single, photo_folder, tmp_path, start_cluster):
    single_run, expected = single
    flags = [*FLAGS, "--strategy=multi_worker", f"--data={photo_folder}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    recording = start_cluster("-c", RECORDING_PROGRAM, f"{tmp_path}/values{{index}}.npy", *flags, f"--output_dir={whole}")
    recording.supervise(recording.is_done)
    assert recording.statuses == [[], []]
    values = [np.load(tmp_path / f"values{index}.npy") for index in (0, 1)]
    np.testing.assert_array_equal(*values)
    assert expected.shape == (50, 3)
    np.testing.assert_allclose(values[0][:, 0], expected[:, 0], atol=1e-5)
    for ours, theirs in zip(*(weights.load(str(run)).model.get_weights() for run in (whole, single_run)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)

    cluster = start_cluster("-m", "jpegsr.cli.main", *flags, f"--output_dir={killed}")
    for step, victim in ((10, 1), (25, 0)):
        cluster.supervise(lambda step=step: last_step(killed) >= step)
        cluster.processes[victim].kill()
    cluster.supervise(cluster.is_done)
    assert last_step(killed) == 50
    assert -signal.SIGKILL in cluster.statuses[0]
    assert -signal.SIGKILL in cluster.statuses[1]
    others = {status for statuses in cluster.statuses for status in statuses} - {-signal.SIGKILL}
    assert others == {PeerLostError.exit_status}
    assert "another worker was lost" in cluster.output[0].read_text()
    ours, theirs = last_state(killed), last_state(whole)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_sigterm_to_one_stops_both_and_one_process_goes_on(single, photo_folder, tmp_path, start_cluster):
    run = tmp_path / "run"
    flags = [*FLAGS, f"--data={photo_folder}", f"--output_dir={run}"]
    cluster = start_cluster("-m", "jpegsr.cli.main", *flags, "--strategy=multi_worker")
    cluster.supervise(lambda: last_step(run) >= 5)
    cluster.processes[1].send_signal(signal.SIGTERM)
    cluster.supervise(cluster.is_done)
    assert 5 < last_step(run) < 50
    assert all("same command goes on" in output.read_text() for output in cluster.output)
    # A checkpoint does not depend on how many made it.
    assert main(flags) == 0
    ours, theirs = (weights.load(str(folder)).model.get_weights() for folder in (run, single[0]))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


@pytest.mark.parametrize(
    "cluster",
    [
        None,
        "no JSON",
        '{"cluster": {"worker": ["localhost:1"]}}',
        '{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"ps": ["localhost:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_cluster_that_is_none_is_one_line(cluster, photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster:
        monkeypatch.setenv("TF_CONFIG", cluster)
    assert main([*FLAGS, "--strategy=multi_worker", f"--data={photo_folder}", f"--output_dir={tmp_path}"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "TF_CONFIG" in errors[0]
