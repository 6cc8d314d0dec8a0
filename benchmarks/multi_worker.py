"""How training grows with workers: two of one thread each against one, at the same batch per worker.

    python benchmarks/multi_worker.py --data=FOLDER [--output=results/multi_worker.json]

A worker is a process pinned to a core, with one thread within and one between operations, that runs the compiled step of stage
joint on batches of the patch stream: decoding, degradation, network, all-reduce of the gradients, optimizer. The figures are
patches per second of all workers together, by the chief's clock, and the medians of rounds that take turns. Run it on an idle
machine with at least two cores: the workers wait for each other, so whatever slows one slows both. Patches per second of the
chief's own processor time, which other programs do not take from it, tell what the communication costs.
"""

import dataclasses
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "training data, as --data of jpegsr train takes it", required=True)
flags.DEFINE_string("preset", "base", "what to train")
flags.DEFINE_integer("batch_per_worker", 16, "patches per worker and step")
flags.DEFINE_integer("steps", 20, "steps to time")
flags.DEFINE_integer("rounds", 3, "how often to measure one and two workers in turn; the medians count")
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_integer("worker", None, "set by the benchmark itself: be this worker, and print the seconds of the steps")
_WARM_UP_STEPS = 5


def be_worker(count: int) -> None:
    """Train beside the other workers of TF_CONFIG."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[FLAGS.worker]})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from jpegsr import models, training, workers
    from jpegsr.config import training_preset
    from jpegsr.data import PatchSampler

    strategy = workers.make_strategy("multi_worker" if count > 1 else "default")
    preset = training_preset(FLAGS.preset)
    config = dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, sources=((FLAGS.data, 0.0),)),
        stage=dataclasses.replace(preset.stage, batch_size=FLAGS.batch_per_worker * count),
    )
    sampler = PatchSampler(config.data, config.model.scale)
    with tempfile.TemporaryDirectory() as folder:
        with strategy.scope():
            joint = models.build_joint(config.model)
        trainer = training.StageTrainer(config, "joint", pathlib.Path(folder), joint, sampler, strategy)
        step, batches = trainer.make_step(), trainer.batches()
        for number in range(_WARM_UP_STEPS + FLAGS.steps):
            if number == _WARM_UP_STEPS:
                started, started_processor = time.perf_counter(), time.process_time()
            loss = float(step(next(batches))[0])
        seconds, processor_seconds = time.perf_counter() - started, time.process_time() - started_processor
        print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds, "last_loss": loss}))
        trainer.workers.meet()
        del batches


def rates(count: int) -> tuple[float, float]:
    """Patches per second of so many workers together, and of the chief per second of its processor time."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    processes = []
    for index in range(count):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, *sys.argv, f"--worker={index}", "--verbosity=-1"],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    if failed := [process.returncode for process in processes if process.returncode]:
        raise SystemExit(f"a worker ended with status {failed[0]}")
    chief = json.loads(outputs[0].splitlines()[-1])
    patches = FLAGS.steps * FLAGS.batch_per_worker
    return patches * count / chief["seconds"], patches / chief["processor_seconds"]


def main(_: list[str]) -> None:
    if FLAGS.worker is not None:
        be_worker(len(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]))
        return
    import figures_file

    rounds = [{count: rates(count) for count in (1, 2)} for _round in range(FLAGS.rounds)]

    def medians(kind: int) -> list[float]:
        return [round(statistics.median(values[count][kind] for values in rounds), 2) for count in (1, 2)]

    together, own = medians(0), medians(1)
    figures = {
        "patches_per_second": dict(zip(("one worker", "two workers"), together, strict=True)),
        "patches_per_processor_second_of_the_chief": dict(zip(("one worker", "two workers"), own, strict=True)),
        "two_over_one": round(together[1] / together[0], 3),
        "two_over_one_by_round": [round(values[2][0] / values[1][0], 3) for values in rounds],
    }
    print(json.dumps(figures, indent=2))
    if FLAGS.output:
        protocol = f"{FLAGS.batch_per_worker} patches per worker, {FLAGS.steps} steps, median of {FLAGS.rounds} rounds"
        figures_file.write(FLAGS.output, protocol, figures)


if __name__ == "__main__":
    app.run(main)
