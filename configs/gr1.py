"""GR-1 (Wu et al., 2023) as AnchorRefine builds on it, on CALVIN's data.

    python launch/train.py --config=configs/gr1.py --workdir=runs/gr1

Full size as published: a window of ten frames, a frozen MAE ViT-B/16 at 224 pixels for
both cameras, a frozen CLIP ViT-B/32 for text, a causal trunk of 12 layers, 0.2 billion
parameters; for a GPU. The files `weights/mae_pretrain_vit_base.pth` (of MAE) and
`weights/clip-vit-base-patch32.safetensors` with the folder `weights/clip` of its
`vocab.json` and `merges.txt` (of transformers) have to be there; other places are named
by `--config.train.load.image_shared.path=FILE` and so on.

`:small` trains everything from scratch on Meta-World, for two CPU cores; `:debug` is
tiny. Both read what `launch/quickstart.py` collects.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "small", "debug")


def get_config(variant: str = "") -> ConfigDict:
    """The config; `:small` is for two CPU cores, `:debug` is tiny."""
    if variant not in VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}; choose one of {VARIANTS}.")
    full, debug = variant == "", variant == "debug"
    cameras = ("primary", "wrist")
    chunk = 10 if full else 8
    action_dim, gripper_dims = (7, (6,)) if full else (4, (3,))
    width = 384 if full else 16 if debug else 128
    tower = (
        dict(patch=16, image_size=224, width=768, num_layers=12, num_heads=12)
        if full
        else dict(patch=24, image_size=96, width=width, num_layers=1, num_heads=4)
    )
    resampler = (
        dict(num_latents=9, num_layers=3, num_heads=4, head_dim=128)
        if full
        else dict(num_latents=4, num_layers=1, num_heads=2, head_dim=width // 2)
    )
    text = (
        dict(name="clip_text")
        if full
        else dict(
            name="clip_text",
            vocab_size=2048,
            width=width,
            num_layers=1,
            num_heads=4,
            length=16,
            projection=width,
        )
    )
    dataset = (
        dict(path="runs/calvin/data/calvin/1.0.0", spec="calvin")
        if full
        else dict(path="runs/quickstart/data/metaworld/1.0.0", spec="metaworld")
    )
    frozen = ("image_shared", "text") if full else ()
    config = dict(
        seed=0,
        data=dict(
            datasets=(dataset,),
            cameras=cameras,
            image_size=(224, 224) if full else (96, 96),
            window=10 if full else 2,
            chunk=chunk,
            normalization=dict(
                action="none" if full else "mean_std", proprio="mean_std"
            ),
            text=dict(length=77 if full else 16, model="weights/clip" if full else ""),
            batch_size=64 if full else 4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image=dict(shared=dict(name="vit", **tower)),
            tokens=dict(
                shared=dict(
                    name="resampled", resampler=dict(name="perceiver", **resampler)
                )
            ),
            text=text,
            proprio=dict(name="arm_gripper", width=width),
            trunk=dict(
                name="gr1",
                width=width,
                num_layers=12 if full else 1 if debug else 4,
                num_heads=12 if full else 4,
                mlp_width=4 * width,
                num_readouts=chunk,
            ),
            head=dict(
                name="regression",
                chunk=chunk,
                action_dim=action_dim,
                element_loss="smooth_l1",
                decoder=dict(
                    name="readout_decoder",
                    chunk=chunk,
                    widths=(width // 2, width // 2),
                ),
                gripper_dims=gripper_dims,
            ),
        ),
        optimizer=dict(
            learning_rate=3e-4 if full else 1e-3,
            warmup_steps=2000 if full else 2 if debug else 100,
            weight_decay=1e-4,
        ),
        train=dict(
            phases=(
                dict(
                    name="anchor",
                    steps=200_000 if full else 4 if debug else 3000,
                    freeze=frozen,
                ),
            ),
            log_every=2 if debug else 50,
            save_every=2 if debug else 1000,
            keep=1,
            eval_every=2 if debug else 500,
            eval_batches=1 if debug else 4,
            load=dict(
                image_shared=dict(
                    kind="vit",
                    path="weights/mae_pretrain_vit_base.pth" if full else "",
                    entry="model",
                ),
                text=dict(
                    kind="clip_text",
                    path="weights/clip-vit-base-patch32.safetensors" if full else "",
                ),
            ),
            augment=dict(
                primary=dict(shift=10 if full else 2),
                wrist=dict(shift=4 if full else 2),
            ),
        ),
        evaluation=(
            dict(primary="static", horizon=360, execute=1)
            if full
            else dict(primary="topview", horizon=150, execute=4)
        ),
    )
    return ConfigDict(config)
