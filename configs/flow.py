"""A flow transformer with soft prompts per robot, after X-VLA (Zheng et al., 2025).

    python launch/train.py --config=configs/flow.py --workdir=runs/flow
    python launch/train.py --config=configs/flow.py:refine --workdir=runs/flow_refine

Full size: 24 layers of width 1024 over images, text, prompts and a chunk of 30 noisy
actions; it predicts the clean chunk. X-VLA sees through Florence-2; here CLIP ViT-L/14
does, for text as well, from `weights/clip-vit-large-patch14.safetensors` and the folder
`weights/clip` with its `vocab.json` and `merges.txt`. The data are the four suites of
LIBERO; each data set has prompts of its own.

The argument is a list of words: `refine` adds the second phase of AnchorRefine, 16
layers that denoise the residual of the frozen policy; `small` trains everything from
scratch on Meta-World, for two CPU cores, and `debug` is tiny. Both read what
`launch/quickstart.py` collects.
"""

import math

from ml_collections import ConfigDict

from vla_jax.names import choose_words
from vla_jax.train.refinement import add_refinement


def get_config(arg: str = "") -> ConfigDict:
    """The config that the words of `arg` describe."""
    size, refine = choose_words(arg, ("small", "debug"), ("refine",))
    full, debug = not size, size == "debug"
    width = 1024 if full else 16 if debug else 128
    num_robots = 4 if full else 1
    prompts = dict(num_embodiments=num_robots, num_prompts=32 if full else 4)
    chunk = 30 if full else 8
    image, text = towers(full, width)
    train = dict(
        steps=60_000 if full else 2 if debug else 3000,
        keep=1,
        eval_every=2 if debug else 500,
        eval_batches=1 if debug else 4,
        ema_decay=0.0 if full else 0.995,
    )
    if full:
        kinds = dict(image_shared="clip_vision", text="clip_text")
        train["load"] = {k: dict(kind=v, path=WEIGHTS) for k, v in kinds.items()}
    slow = ("image_shared", "text", "trunk/prompt") if full else ()
    config = dict(
        seed=0,
        data=dict(
            datasets=(LIBERO if full else METAWORLD,),
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
            image=dict(shared=image),
            tokens=dict(shared=dict(name="grid", level="patches", width=width)),
            text=text,
            proprio=False,  # the denoiser reads it
            trunk=dict(name="prompted", width=width, **prompts),
            head=head(full, width, num_robots, 24 if full else 1 if debug else 4),
        ),
        optimizer=dict(
            learning_rate=1e-4 if full else 1e-3,
            warmup_steps=2000 if full else 1 if debug else 100,
            weight_decay=0.0,
            b2=0.95,
            learning_rate_scale=tuple((part, 0.1) for part in slow),
        ),
        train=train,
        evaluation=LIBERO_EVALUATION if full else METAWORLD_EVALUATION,
    )
    if refine:
        # An anchor that draws leaves its draw to be corrected besides its mistakes, and
        # of residuals it is the mean that corrects: one step.
        config["model"]["head"]["temperature"] = 0.0
        residual = head(full, width, num_robots, 16 if full else 1 if debug else 2)
        config = add_refinement(
            config,
            residual | dict(temperature=0.0, num_steps=1),
            steps=80_000 if full else 2 if debug else 1000,
            fields=dict(scale_residual=True),
            optimizer=dict(learning_rate=1e-4 if full else 3e-4),
        )
    return ConfigDict(config)


WEIGHTS = "weights/clip-vit-large-patch14.safetensors"
LIBERO = dict(mixture="libero_4_task_suites_no_noops", data_dir="data/libero")
LIBERO_EVALUATION = dict(primary="agentview", horizon=520, execute=10)
METAWORLD = dict(path="runs/quickstart/data/metaworld/1.0.0", spec="metaworld")
METAWORLD_EVALUATION = dict(primary="topview", horizon=150, execute=4)


def towers(full: bool, width: int) -> tuple[dict, dict]:
    """Vision and text tower."""
    if full:
        image = dict(patch=14, width=1024, num_layers=24, num_heads=16)
        text = dict(width=768, num_layers=12, num_heads=12, projection=768)
    else:
        layers = dict(width=width, num_layers=1, num_heads=4)
        image = dict(patch=24, image_size=96, **layers)
        text = dict(vocab_size=2048, length=16, **layers)
    return dict(name="clip_vision", **image), dict(name="clip_text", pool=False, **text)


def head(full: bool, width: int, num_robots: int, num_layers: int) -> dict:
    """The anchor, or, as the same with its own layers, a refinement."""
    sizes = dict(chunk=30 if full else 8, action_dim=7 if full else 4)
    periods = dict(min_period=2 * math.pi, max_period=2 * math.pi * 100)
    return dict(
        name="flow",
        gripper_dims=(sizes["action_dim"] - 1,),
        prediction="sample",
        integrator="fixed_noise",
        time_law="stratified",
        denoiser=dict(
            name="joint",
            time=dict(name="sinusoidal", width=32, **periods),
            num_embodiments=num_robots,
            width=width,
            num_layers=num_layers,
            num_heads=16 if full else 4,
            mlp_width=4 * width,
            hidden_proprio=(6, 7) if full else (3,),
            **sizes,
        ),
        **sizes,
    )
