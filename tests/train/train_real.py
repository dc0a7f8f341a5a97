"""A training run in a process of its own: the real policy on a tiny data set.

python tests/train/train_real.py CACHE DATA WORKDIR STEPS [STEP TO BE KILLED AT]
"""

import os
import signal
import sys

import jax

from tests.fake_batch import policy_config
from vla_jax.train.loop import train


def get_config(data: str, steps: int, compile_cache: str = "") -> dict:
    """The sections of a run on the data set of `tests/fake.py`."""
    return dict(
        seed=3,
        data=dict(
            datasets=(dict(path=data, spec="metaworld", weight=1.0),),
            cameras=("primary", "wrist"),
            image_size=(16, 16),
            window=1,
            chunk=2,
            normalization=dict(action="quantile", proprio="mean_std"),
            text=dict(length=16, model=""),
            batch_size=4,
            num_threads=1,
            prefetch=2,
        ),
        model=policy_config(chunk=2, action_dim=4, vocab_size=2048),
        optimizer=dict(learning_rate=1e-2, warmup_steps=2, weight_decay=1e-2),
        train=dict(
            steps=steps,
            log_every=1,
            save_every=2,
            eval_every=4,
            eval_batches=2,
            ema_decay=0.9,
            augment=dict(shift=1, brightness=0.1),
            compile_cache=compile_cache,
        ),
        evaluation=dict(),
    )


def main(cache: str, data: str, workdir: str, steps: str, kill_at: str = "0") -> None:
    """Trains and says which modules were loaded."""

    def on_batch(done, batch):
        del batch
        if done == int(kill_at) > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    config = get_config(data, int(steps), cache)
    train(config, workdir, on_batch=on_batch)
    loaded = [name for name in ("tensorflow", "torch") if name in sys.modules]
    print("finished; loaded:", loaded)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 1)
    main(*sys.argv[1:])
