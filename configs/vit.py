"""A vision transformer that reads words and acts: 300 million parameters, on Bridge V2.

    python launch/train.py --config=configs/vit.py --workdir=runs/vit

One camera of 224x224 pixels is cut into 196 patches; a transformer of the size of ViT-L
reads them with the instruction. It is plain on purpose, the policy to measure
accelerators with (docs/benchmarks.md):

    python launch/benchmark.py step --config=configs/vit.py --compare=torch

The batch of 64 is for one GPU with 80 GB. `:small` is for two CPU cores.
"""

from ml_collections import ConfigDict

CHUNK, ACTION_DIM, VOCABULARY = 8, 7, 2048


def get_config(variant: str = "") -> ConfigDict:
    """The config; `:small` is for two CPU cores, `:debug` is tiny."""
    if variant not in ("", "small", "debug"):
        raise ValueError(f"Unknown variant {variant!r}; choose '', 'small' or 'debug'.")
    full, debug = variant == "", variant == "debug"
    width = 1024 if full else 16 if debug else 192
    side = 224 if full else 32 if debug else 96
    steps = 200_000 if full else 4 if debug else 5_000
    config = dict(
        seed=0,
        data=dict(
            datasets=(dict(path="~/data/bridge_orig", spec="bridge_orig"),),
            cameras=("primary",),
            image_size=(side, side),
            window=1,
            chunk=CHUNK,
            normalization=dict(action="quantile", proprio="quantile"),
            text=dict(length=32, model="", truncate=True),
            batch_size=64 if full else 2 if debug else 16,
            num_threads=16 if full else 2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image=dict(
                primary=dict(name="conv", patch=16, widths=(width,), strides=())
            ),
            tokens=dict(primary=dict(name="grid", level="stem", width=width)),
            text=dict(
                name="text_transformer",
                vocab_size=VOCABULARY,
                width=width,
                num_layers=0,
            ),
            trunk=dict(
                name="blockwise",
                width=width,
                num_layers=24 if full else 1 if debug else 6,
                num_heads=16 if full else 4,
                mlp_width=4 * width,
            ),
            head=dict(name="regression", chunk=CHUNK, action_dim=ACTION_DIM),
            compute=dict(dtype="bfloat16", scan=True) if full else {},
        ),
        optimizer=dict(
            learning_rate=1e-4 if full else 5e-4,
            warmup_steps=2 if debug else 1000 if full else 100,
            weight_decay=1e-2,
        ),
        train=dict(
            steps=steps,
            save_every=2 if debug else 5000,
            eval_every=2 if debug else 5000,
            eval_batches=1 if debug else 8,
        ),
        evaluation=dict(primary="primary", horizon=150, execute=4),
    )
    return ConfigDict(config)
