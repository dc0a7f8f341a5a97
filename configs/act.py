"""ACT (Zhao et al., 2023) on the ALOHA simulation, the Transfer Cube task.

    python launch/collect.py --env=aloha --tasks=transfer_cube --episodes=50 \
        --out=runs/aloha/data
    python launch/train.py --config=configs/act.py --workdir=runs/act

Full size as published: 480x640 pixels, ResNet-18, 51.6 million parameters, for a GPU.
It starts from ImageNet weights of torchvision or transformers, of which it looks for
the file `weights/resnet18.pth`; `--config.train.load.image_shared.path=FILE` names
another. From scratch: `--config.train.load.image_shared.path=` and
`--config.model.image.shared.norm=group`.

`:small` is the same code for two CPU cores: 96x128 pixels, a ResNet of a quarter of the
width with group normalization and without layer4, from scratch; tokens of 128 numbers
and two layers, not 512 and four; no dropout, but proprio is masked in most examples, or
a policy that starts from random weights learns to look late. Its pictures are recorded
larger:

    python launch/collect.py --env=aloha --tasks=transfer_cube --episodes=200 \
        --action_noise=0.01 --image_size=240x320 --out=runs/aloha/data
    python launch/train.py --config=configs/act.py:small --workdir=runs/act
    python launch/evaluate.py --checkpoint=runs/act --env=aloha --tasks=transfer_cube
"""

from ml_collections import ConfigDict

VARIANTS = ("", "small", "debug")


def get_config(variant: str = "") -> ConfigDict:
    """The config; `:small` is for two CPU cores, `:debug` is tiny."""
    if variant not in VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}; choose one of {VARIANTS}.")
    full, debug = variant == "", variant == "debug"
    chunk = 8 if debug else 100
    width = 512 if full else 16 if debug else 128
    last = "layer4" if full else "layer1" if debug else "layer3"
    steps = 4 if debug else 10_000
    layers = dict(
        width=width,
        num_layers=4 if full else 1 if debug else 2,
        num_heads=8 if full else 4,
        mlp_width=3200 if full else 2 * width,
        dropout=0.1 if full else 0.0,
    )
    weights = "weights/resnet18.pth" if full else ""
    config = dict(
        seed=0,
        data=dict(
            datasets=(dict(path="runs/aloha/data/aloha/1.0.0", spec="aloha_sim"),),
            cameras=("primary",),
            image_size=(480, 640) if full else (32, 48) if debug else (96, 128),
            window=1,
            chunk=chunk,
            normalization=dict(action="mean_std", proprio="mean_std"),
            text=dict(length=16, model=""),
            batch_size=2 if debug else 8,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image=dict(
                shared=dict(
                    name="resnet",
                    depth=18,
                    norm="frozen" if full else "group",
                    width=64 if full else 16,
                    last=last,
                )
            ),
            tokens=dict(shared=dict(name="sine_grid", level=last, width=width)),
            proprio=dict(name="linear", width=width),
            proprio_dropout=0.0 if full else 0.7,
            latent=dict(name="action_vae", latent_dim=32, beta=10.0, **layers),
            trunk=dict(
                name="encoder_decoder",
                num_decoder_layers=1,
                num_readouts=chunk,
                **layers,
            ),
            head=dict(name="per_step", chunk=chunk, action_dim=14, divide_by="all"),
        ),
        optimizer=dict(
            learning_rate=1e-5 if full else 5e-4,
            schedule="constant" if full else "cosine",
            warmup_steps=0 if full else 100,
            weight_decay=1e-4,
            clip_norm=0.0 if full else 1.0,
        ),
        train=dict(
            steps=steps,
            log_every=2 if debug else 50,
            save_every=2 if debug else 1000,
            keep=1,
            eval_every=2 if debug else 500,
            eval_batches=1 if debug else 4,
            ema_decay=0.0 if full else 0.995,
            load=dict(image_shared=dict(kind="resnet", path=weights)),
        ),
        evaluation=dict(
            primary="top",
            horizon=400,
            ensemble=0.01,
            # The size of the recorded pictures, from which training shrinks them.
            image_size=(480, 640) if full else (240, 320),
        ),
    )
    return ConfigDict(config)
