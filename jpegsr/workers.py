"""Strategies of `tf.distribute`, and what the processes of a run on many workers have to agree on.

All workers run the same program. Each draws its own share of every global batch (patches are shared out by their index, so the
batch is that of a single process), and the gradients are averaged over all. The chief, worker 0, alone validates and writes;
the others wait for it at the next collective operation. Synchronous training cannot go on without one of them: when one is
lost, the others raise `PeerLostError`, and all of them, started again, go on from the last checkpoint.
"""

import json
import os
from typing import Any

import tensorflow as tf

from jpegsr.errors import UserError, first_line

# Workers ask each other this seldom, in steps, whether one of them was told to stop: the answer costs them a round trip.
_AGREE_EVERY = 10
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


class PeerLostError(UserError):
    """Another worker of the run has ended; the same command goes on from the last checkpoint, once all workers run again."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: "try again later"


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of that name; for several workers it has to be the first thing TensorFlow does.

    Args:
      name: "default", "mirrored", "multi_worker" or "tpu".

    Raises:
      UserError: this machine has no such device, or TF_CONFIG does not describe a cluster that can be had.
    """
    if name == "mirrored":
        if not tf.config.list_logical_devices("GPU"):
            raise UserError("no GPU on this machine for --strategy=mirrored: leave it out to train on the CPU")
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return _multi_worker_strategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        except (ValueError, tf.errors.OpError) as error:
            raise UserError(f"no TPU on this machine: {first_line(error)}") from None
    return tf.distribute.get_strategy()


def _multi_worker_strategy() -> tf.distribute.Strategy:
    _check_cluster(os.environ.get("TF_CONFIG", ""))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"cannot join the cluster of TF_CONFIG: {first_line(error)}") from None


def _check_cluster(text: str) -> None:
    """`UserError` unless TF_CONFIG describes a cluster of workers with this process among them."""
    if not text:
        raise UserError(
            f"--strategy=multi_worker finds its peers in the variable TF_CONFIG: set it, as in TF_CONFIG='{_EXAMPLE}'"
        )
    try:
        config: Any = json.loads(text)
        kind, index = config["task"]["type"], int(config["task"]["index"])
        addresses = config["cluster"][kind]
        if kind not in ("chief", "worker") or not 0 <= index < len(addresses):
            raise ValueError(f"there is no {kind} {index} in the cluster, or none that trains")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"TF_CONFIG describes no worker of a cluster ({error!r}): it should be like {_EXAMPLE}") from None


class Workers:
    """The processes that train together; one of its own where the strategy has no others.

    Attributes:
      count: how many there are.
      is_chief: whether this is the one that validates and writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.count, self.is_chief = 1, True
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            jobs = resolver.cluster_spec().as_dict()
            self.count = len(jobs.get("chief", [])) + len(jobs.get("worker", []))
            self.is_chief = resolver.task_type == "chief" or ("chief" not in jobs and resolver.task_id == 0)

        @tf.function
        def total(value):
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(value,)), axis=None)

        self._total = total

    def _sum(self, value: int) -> int:
        """Of what all devices' workers give."""
        return int(self._total(tf.constant(value, tf.int64)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some worker; all have to ask at the same point."""
        return self._sum(int(flag)) > 0 if self.count > 1 else flag

    def meet(self) -> None:
        """Wait until all workers have come here."""
        self.any(False)

    def must_stop(self, step: int, is_asked_to: bool) -> bool:
        """Whether a worker was asked to stop, with the same answer on all of them at the same step."""
        if self.count == 1:
            return is_asked_to
        return step % _AGREE_EVERY == 0 and self.any(is_asked_to)

    def require_equal(self, value: int, message: str) -> None:
        """`UserError` on all workers if they do not give the same whole number."""
        if self.count > 1 and self.any(self._sum(value) != value * self._strategy.num_replicas_in_sync):
            raise UserError(message)

    def explained(self, error: tf.errors.OpError) -> Exception:
        """What to raise in place of an error of TensorFlow: the loss of a peer is none of the user's data."""
        aborted = (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
        )
        if self.count > 1 and (isinstance(error, aborted) or "Collective ops is aborted" in str(error)):
            return PeerLostError(
                "another worker was lost: start the same command on all workers again, they go on from the last checkpoint "
                f"(exit status {PeerLostError.exit_status})"
            )
        return error
