"""One function on several workers that share their gradients, placed by Ray Train.

Each worker has one device, and torch.distributed is set up between them (NCCL on GPUs, gloo otherwise). When one fails all
are started again: the function has to go on from what it saved.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from pipeline.cluster.errors import GroupLost
from pipeline.cluster.options import PoolOptions
from pipeline.cluster.room import cluster, keeping_handler, request_for
from pipeline.core.errors import InvalidOption, PipelineError

Part = Callable[[int, int, str], None]
"""What a worker runs: its number, how many there are, and the device it has (cpu or cuda)."""


def run_group(function: Part, workers: int, *, address: str | None, device: str, restarts: int = 3) -> None:
    """Run ``function(worker, workers, device)``, picklable, once on each of ``workers``; return when all have ended.

    Raises what a worker raised where that is one of this project's errors, GroupLost where workers failed for other reasons
    more than ``restarts`` times, ResourcesUnavailable where the cluster can never hold them, and ClusterUnavailable.
    """
    if workers < 1:
        raise InvalidOption("--workers", str(workers), "give a number from 1.")
    with cluster(address), tempfile.TemporaryDirectory(prefix="iarn-") as notes:
        cpus = 1 if device == "cpu" else None  # convolutions of one worker on several CPUs wait for each other
        options = PoolOptions(address=address, actors=workers, cpus_per_actor=cpus)
        request = request_for(device, options, noun="worker")
        given = {"CPU": request.cpus} | ({"GPU": request.gpus} if request.gpus else {})
        trainer = TorchTrainer(
            _run_part,
            train_loop_config={"function": function, "device": "cuda" if request.gpus else "cpu"},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=request.gpus > 0, resources_per_worker=given),
            run_config=RunConfig(storage_path=notes, failure_config=FailureConfig(max_failures=restarts)),
        )
        try:
            with keeping_handler(signal.SIGINT):
                trainer.fit()
        except SystemExit:  # what Ray Train makes of Ctrl-C
            raise KeyboardInterrupt from None
        except WorkerGroupError as error:
            # Ray wraps what a worker raised, to carry its traceback.
            failures = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
            for failure in failures:
                if isinstance(failure, PipelineError):
                    raise failure from None
            raise GroupLost(f"{type(failures[0]).__name__}: {failures[0]}" if failures else str(error)) from None
        except TrainingFailedError as error:
            raise GroupLost(str(error)) from None


def _run_part(config: dict[str, object]) -> None:
    context = ray.train.get_context()
    function: Part = config["function"]  # type: ignore[assignment]
    function(context.get_world_rank(), context.get_world_size(), str(config["device"]))
