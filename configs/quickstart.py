"""Three Meta-World tasks told apart by language, on two CPU cores.

    make quickstart

collects 40 demonstrations a task, trains this policy and evaluates it in closed loop.
By hand, after `launch/collect.py` (see `launch/quickstart.py` for its flags):

    python launch/train.py --config=configs/quickstart.py --workdir=runs/quickstart/run

The pictures are 96x96 from above and from the wrist. A small convolutional encoder
makes two tokens of each; so few leave nearly all time to the images, which is what a
CPU has too little of.
"""

from ml_collections import ConfigDict

CHUNK = 16
WIDTH = 128


def get_config(variant: str = "") -> ConfigDict:
    """The config; `:debug` is tiny, `:blind` is the baseline without cameras."""
    if variant not in ("", "debug", "blind"):
        raise ValueError(f"Unknown variant {variant!r}; choose '', 'debug' or 'blind'.")
    debug = variant == "debug"
    cameras = () if variant == "blind" else ("primary", "wrist")
    width = 16 if debug else WIDTH
    steps = 4 if debug else 2400
    config = dict(
        seed=0,
        data=dict(
            datasets=(
                dict(path="runs/quickstart/data/metaworld/1.0.0", spec="metaworld"),
            ),
            cameras=cameras,
            image_size=(96, 96),
            window=1,
            chunk=CHUNK,
            normalization=dict(action="mean_std", proprio="mean_std"),
            text=dict(length=16, model=""),
            batch_size=4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image={
                camera: dict(
                    name="conv",
                    patch=4,
                    widths=(8, 8, 8) if debug else (32, 64, 64),
                    strides=(2, 1),
                )
                for camera in cameras
            },
            tokens={
                camera: dict(name="flat", level="stage2", width=width)
                for camera in cameras
            },
            text=dict(
                name="text_transformer",
                vocab_size=2048,
                width=width,
                num_layers=0,
            ),
            trunk=dict(
                name="blockwise",
                width=width,
                num_layers=1 if debug else 2,
                num_heads=4,
                mlp_width=4 * width,
            ),
            head=dict(name="regression", chunk=CHUNK, action_dim=4),
        ),
        optimizer=dict(
            learning_rate=1e-3,
            warmup_steps=2 if debug else 100,
            final_scale=0.01,
            weight_decay=1e-4,
        ),
        train=dict(
            steps=steps,
            log_every=2 if debug else 50,
            save_every=2 if debug else 500,
            keep=1,
            eval_every=2 if debug else 500,
            eval_batches=1 if debug else 8,
            ema_decay=0.995,
            augment=dict(shift=2, brightness=0.05, contrast=0.1),
        ),
        evaluation=dict(primary="topview", horizon=150, execute=8),
    )
    return ConfigDict(config)
