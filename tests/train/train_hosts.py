"""One process of several that train a toy on the data set of `tests/fake.py`.

python tests/train/train_hosts.py JSON, with the fields of `main`
"""

import json
import os
import sys
from pathlib import Path

import jax

from tests.train import toy
from tests.train.train_real import get_config
from vla_jax.train.config import resolve
from vla_jax.train.distributed import processes
from vla_jax.train.feed import make_feed
from vla_jax.train.interrupt import Interrupt
from vla_jax.train.loop import fit
from vla_jax.train.sharding import make_mesh


def main(
    *,
    data: str,
    workdir: str,
    cache: str,
    port: int,
    count: int,
    number: int,
    devices: int,
    mesh: dict,
    rules: list,
    signal_at: dict,
) -> None:
    """Trains to step 12, saving every second; `signal_at` is {step: signal}."""

    def on_batch(done, batch):
        # Rows that this process holds, to be compared with those of one process.
        rows = {
            str(s.index[0].start or 0): s.data for s in batch.action.addressable_shards
        }
        line = {row: float(value.sum()) for row, value in rows.items()}
        with (Path(workdir) / f"rows-{count}-{number}.jsonl").open("a") as file:
            file.write(json.dumps([done, line]) + "\n")
        if str(done) in signal_at:
            os.kill(os.getpid(), signal_at[str(done)])

    jax.config.update("jax_num_cpu_devices", devices)
    config = get_config(data, 12, cache)
    config["train"] |= dict(mesh=mesh, sharding=rules, fsdp_min_size=16)
    config["train"] |= dict(tensorboard=False, augment={}, eval_every=6)
    joined = dict(
        coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=number
    )
    with processes(heartbeat_timeout_s=10, **(joined if count > 1 else {})):
        config = resolve(config)
        devices = make_mesh(mesh)
        with Interrupt() as interrupt:
            step = fit(
                config,
                workdir,
                model=toy.Toy(),
                augment=toy.no_augment,
                feed=make_feed(config, devices),
                mesh=devices,
                interrupt=interrupt,
                on_batch=on_batch,
            )
    print("stopped after step", step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
