"""A flow transformer with soft prompts per robot, after X-VLA (Zheng et al., 2025).

    python launch/train.py --config=configs/flow.py --workdir=runs/flow

Full size: 24 layers of width 1024 over images, text, prompts and a chunk of 30 noisy
actions; it predicts the clean chunk. X-VLA sees through Florence-2; here CLIP ViT-L/14
does, for text as well, from `weights/clip-vit-large-patch14.safetensors` and the folder
`weights/clip` with its `vocab.json` and `merges.txt`. The data are the four suites of
LIBERO; each data set has prompts of its own.

`:small` trains everything from scratch on Meta-World, for two CPU cores; `:debug` is
tiny. Both read what `launch/quickstart.py` collects.
"""

import math

from ml_collections import ConfigDict

VARIANTS = ("", "small", "debug")
WEIGHTS = "weights/clip-vit-large-patch14.safetensors"


def get_config(variant: str = "") -> ConfigDict:
    """The config; `:small` is for two CPU cores, `:debug` is tiny."""
    if variant not in VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}; choose one of {VARIANTS}.")
    full, debug = variant == "", variant == "debug"
    chunk = 30 if full else 8
    action_dim, gripper_dims = (7, (6,)) if full else (4, (3,))
    width = 1024 if full else 16 if debug else 128
    if full:
        tower = dict(patch=14, width=1024, num_layers=24, num_heads=16)
        text = dict(width=768, num_layers=12, num_heads=12, projection=768)
        datasets = (
            dict(mixture="libero_4_task_suites_no_noops", data_dir="data/libero"),
        )
    else:
        tower = dict(patch=24, image_size=96, width=width, num_layers=1, num_heads=4)
        text = dict(vocab_size=2048, width=width, num_layers=1, num_heads=4, length=16)
        path = "runs/quickstart/data/metaworld/1.0.0"
        datasets = (dict(path=path, spec="metaworld"),)
    num_robots = 4 if full else 1
    config = dict(
        seed=0,
        data=dict(
            datasets=datasets,
            cameras=("primary", "wrist"),
            image_size=(224, 224) if full else (96, 96),
            window=1,
            chunk=chunk,
            normalization=dict(action="mean_std", proprio="mean_std"),
            text=dict(length=77 if full else 16, model="weights/clip" if full else ""),
            batch_size=64 if full else 4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image=dict(shared=dict(name="clip_vision", **tower)),
            tokens=dict(shared=dict(name="grid", level="patches", width=width)),
            text=dict(name="clip_text", pool=False, **text),
            proprio=False,
            trunk=dict(
                name="prompted",
                width=width,
                num_embodiments=num_robots,
                num_prompts=32 if full else 4,
            ),
            head=dict(
                name="flow",
                chunk=chunk,
                action_dim=action_dim,
                gripper_dims=gripper_dims,
                prediction="sample",
                integrator="fixed_noise",
                time_law="stratified",
                denoiser=dict(
                    name="joint",
                    time=dict(
                        name="sinusoidal",
                        width=32,
                        min_period=2 * math.pi,
                        max_period=2 * math.pi * 100,
                    ),
                    chunk=chunk,
                    action_dim=action_dim,
                    num_embodiments=num_robots,
                    width=width,
                    num_layers=24 if full else 1 if debug else 4,
                    num_heads=16 if full else 4,
                    mlp_width=4 * width,
                    hidden_proprio=(6, 7) if full else (3,),
                ),
            ),
        ),
        optimizer=dict(
            learning_rate=1e-4 if full else 1e-3,
            warmup_steps=2000 if full else 2 if debug else 100,
            weight_decay=0.0,
            beta2=0.95,
            learning_rate_scale=(
                (("image_shared", 0.1), ("text", 0.1), ("trunk/prompt", 0.1))
                if full
                else ()
            ),
        ),
        train=dict(
            steps=60_000 if full else 4 if debug else 3000,
            log_every=2 if debug else 50,
            save_every=2 if debug else 1000,
            keep=1,
            eval_every=2 if debug else 500,
            eval_batches=1 if debug else 4,
            ema_decay=0.0 if full else 0.995,
            load=dict(
                image_shared=dict(kind="clip_vision", path=WEIGHTS if full else ""),
                text=dict(kind="clip_text", path=WEIGHTS if full else ""),
            ),
        ),
        evaluation=(
            dict(primary="agentview", horizon=520, execute=10)
            if full
            else dict(primary="topview", horizon=150, execute=4)
        ),
    )
    return ConfigDict(config)
