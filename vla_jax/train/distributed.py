"""Several processes that train as one: joining them, and going down together.

Every process runs the same command. They find each other by flags, or by themselves on
Cloud TPU and under SLURM. When one dies, the others must not wait for it: its closed
connections fail their collectives, and what no connection tells them, the missing
heartbeat does. A process that fails leaves at once instead of waiting for the rest.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from vla_jax.names import did_you_mean

MODES = ("auto", "on", "off")
_GIVE_UP = 300  # seconds to wait for processes that do not come at the start


@contextlib.contextmanager
def processes(
    mode: str = "auto",
    *,
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    heartbeat_timeout_s: int = 60,
) -> Iterator[None]:
    """Joins this process with the others; call it before anything asks for a device.

    After an error inside, the process ends at once with its exit code: the orderly end
    of `jax.distributed` waits for processes that may wait for this one.

    Args:
        mode: "auto" joins when flags, Cloud TPU or SLURM say that there are others,
            "on" insists, "off" never does.
        coordinator: `host:port` of process 0; empty where the cluster says it.
        num_processes: all of them; 0 where the cluster says it.
        process_id: of this one, from 0; -1 where the cluster says it.
        heartbeat_timeout_s: silence after which a process counts as dead, which ends
            all others.

    Raises:
        ValueError: an unknown mode, some but not all of the three flags, or "on" where
            nothing tells who the others are.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown mode {mode!r}; {did_you_mean(mode, MODES)}")
    given = [bool(coordinator), num_processes > 0, process_id >= 0]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator, --num_processes and --process_id go together: got "
            f"{coordinator!r}, {num_processes} and {process_id}."
        )
    if mode == "off" or (mode == "auto" and not any(given) and not in_cluster()):
        yield
        return
    # The default on CPU, said here because no other library crosses processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes if any(given) else None,
            process_id if any(given) else None,
            None if any(given) else slurm_devices(),
            cluster_detection_method="deactivate" if any(given) else None,
            initialization_timeout=_GIVE_UP,
            heartbeat_timeout_seconds=heartbeat_timeout_s,
            # Of a process that is done, for others that are not.
            shutdown_timeout_seconds=max(heartbeat_timeout_s, 60),
        )
    except ValueError as error:
        raise ValueError(
            f"No cluster was found ({error}) Outside of Cloud TPU and SLURM, give "
            "--coordinator, --num_processes and --process_id, or --distributed=off."
        ) from error
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        _leave(error)


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Cloud TPU or a SLURM step of several tasks started this process."""
    if int(environment.get("SLURM_NTASKS", "1")) > 1:
        return "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("tpu", ""):
        return False
    # JAX sets the variable itself where it sees no TPU; `import jax` has run.
    return "TPU_SKIP_MDS_QUERY" not in environment


def slurm_devices(environment: Mapping[str, str] = os.environ) -> list[int] | None:
    """The GPUs of a SLURM task that is alone on its node: all of them.

    JAX gives each task the one GPU with its number, which suits a task per GPU; None
    leaves it at that.
    """
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if re.fullmatch(r"1(\(x\d+\))?", tasks) and gpus.isdigit():
        return list(range(int(gpus)))
    return None


def data_share(sharding: Sharding, batch_size: int) -> tuple[int, int]:
    """Which part of every batch this process loads.

    Processes that hold the same rows, as those that share a `tensor` group do, load the
    same part.

    Args:
        sharding: of the batch.
        batch_size: rows of the whole batch.

    Returns:
        The number of this part and of all parts.

    Raises:
        ValueError: a mesh in which processes share some of their rows and not others.
    """
    rows: dict[int, set[int]] = {}
    for device, (index, *_) in sharding.devices_indices_map((batch_size,)).items():
        held = range(*index.indices(batch_size))
        rows.setdefault(device.process_index, set()).update(held)
    # On a torus the rows of a process need not be consecutive; the parts are in order
    # of their first row.
    parts = sorted({tuple(sorted(held)) for held in rows.values()})
    sizes = {len(part) for part in parts}
    if len(sizes) > 1 or sum(map(len, parts)) != batch_size:
        raise ValueError(
            f"The mesh splits a batch of {batch_size} so that processes share some of "
            "their rows and not others; make train.mesh.tensor divide the devices of "
            "a process, or a multiple of them."
        )
    mine = tuple(sorted(rows[jax.process_index()]))
    return parts.index(mine), len(parts)


def agree(value: bool) -> bool:
    """Whether `value` is true in any process; they must all ask."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).any())


def _leave(error: BaseException) -> None:
    """Prints what Python would print, and ends without waiting for other processes."""
    code = error.code if isinstance(error, SystemExit) else 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    elif not isinstance(error, SystemExit):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
