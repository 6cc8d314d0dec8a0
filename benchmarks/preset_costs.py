"""What a training step of each preset costs here: seconds, memory, and the days that its number of steps would take.

    python benchmarks/preset_costs.py [--presets=paper,large,base,fast] [--output=results/preset_costs.json]

Times the compiled step of stage joint on one constant batch, so nothing is learned and no data is needed. Each preset runs in a
process of its own, whose peak memory counts. Run it on an idle machine; `paper` takes minutes.
"""

import dataclasses
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("presets", ["paper", "large", "base", "fast"], "what to measure")
flags.DEFINE_integer("steps", 3, "steps to time, after one that compiles")
flags.DEFINE_string("output", None, "JSON file to write")
flags.DEFINE_string("measure", None, "set by the benchmark itself: measure this preset, and print it")


def measure(name: str) -> None:
    import tensorflow as tf

    from jpegsr import models, training
    from jpegsr.config import training_preset
    from jpegsr.data import Patch, PatchSampler

    config = training_preset(name)
    joint = models.build_joint(config.model)
    batch_size, side, scale = config.stage.batch_size, config.data.patch_size, config.model.scale
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "pictures").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (4 * side, 4 * side, 3), np.uint8)
        tf.io.write_file(f"{folder}/pictures/noise.png", tf.io.encode_png(noise))
        data = dataclasses.replace(config.data, sources=((f"{folder}/pictures", 0.0),), holdout_every=0)
        config = dataclasses.replace(config, data=data)
        sampler = PatchSampler(data, scale)
        trainer = training.StageTrainer(config, "joint", pathlib.Path(folder), joint, sampler, tf.distribute.get_strategy())
        step, batches = trainer.make_step(), trainer.batches()
        batch: Patch = next(batches)
        seconds = []
        for _ in range(1 + FLAGS.steps):
            started = time.perf_counter()
            float(step(batch)[0])
            seconds.append(time.perf_counter() - started)
        del batches
    per_step = min(seconds[1:])
    figures = {
        "parameters": joint.count_params(),
        "patches": f"{batch_size} of {side}x{side}, enlarged {scale} times",
        "seconds_per_step": round(per_step, 3),
        "peak_memory_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "days_for_100000_steps": round(1e5 * per_step / 86400, 1),
    }
    print(json.dumps(figures))


def main(_: list[str]) -> None:
    if FLAGS.measure:
        measure(FLAGS.measure)
        return
    import figures_file

    figures = {}
    for name in FLAGS.presets:
        command = [sys.executable, __file__, f"--measure={name}", f"--steps={FLAGS.steps}"]
        output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        figures[name] = json.loads(output.splitlines()[-1])
        print(name, figures[name], flush=True)
    if FLAGS.output:
        figures_file.write(FLAGS.output, f"the fastest of {FLAGS.steps} steps, float32", {"presets": figures})


if __name__ == "__main__":
    app.run(main)
