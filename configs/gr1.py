"""GR-1 (Wu et al., 2023) as AnchorRefine builds on it, on CALVIN's data.

    python launch/train.py --config=configs/gr1.py --workdir=runs/gr1
    python launch/train.py --config=configs/gr1.py:refine --workdir=runs/gr1_refine

Full size as published: a window of ten frames, a frozen MAE ViT-B/16 at 224 pixels for
both cameras, a frozen CLIP ViT-B/32 for text, a causal trunk of 12 layers, 0.2 billion
parameters; for a GPU. The files `weights/mae_pretrain_vit_base.pth` (of MAE) and
`weights/clip-vit-base-patch32.safetensors` with the folder `weights/clip` of its
`vocab.json` and `merges.txt` (of transformers) have to be there; other places are named
by `--config.train.load.image_shared.path=FILE` and so on. The data are CALVIN's, which
`launch/convert.py --from=calvin` writes (docs/data.md).

The argument is a list of words: `refine` adds the second phase of AnchorRefine, eight
layers on the frozen policy; `small` trains everything from scratch on Meta-World, for
two CPU cores, and `debug` is tiny. Both read what `launch/quickstart.py` collects.
"""

from ml_collections import ConfigDict

from vla_jax.names import choose_words
from vla_jax.train.refinement import add_refinement


def get_config(arg: str = "") -> ConfigDict:
    """The config that the words of `arg` describe."""
    size, refine = choose_words(arg, ("small", "debug"), ("refine",))
    full, debug = not size, size == "debug"
    width = 384 if full else 16 if debug else 128
    num_heads = 12 if full else 4
    scaling = "none" if full else "mean_std"
    chunk, action_dim = 10 if full else 8, 7 if full else 4
    action = dict(chunk=chunk, action_dim=action_dim, gripper_dims=(action_dim - 1,))
    action |= dict(element_loss="smooth_l1")
    image, resampler, text = parts(full, width)
    layers = sizes(width, 12 if full else 1 if debug else 4, num_heads)
    frozen = ("image_shared", "text") if full else ()
    steps = 200_000 if full else 2 if debug else 3000
    train = dict(
        phases=(dict(name="anchor", steps=steps, freeze=frozen),),
        keep=1,
        eval_every=2 if debug else 500,
        eval_batches=1 if debug else 4,
        augment={c: dict(shift=n if full else 2) for c, n in SHIFTS.items()},
    )
    if full:
        mae = dict(kind="vit", path="weights/mae_pretrain_vit_base.pth", entry="model")
        clip = dict(kind="clip_text", path="weights/clip-vit-base-patch32.safetensors")
        train |= dict(load=dict(image_shared=mae, text=clip))
    config = dict(
        seed=0,
        data=dict(
            datasets=(CALVIN if full else METAWORLD,),
            cameras=tuple(SHIFTS),
            image_size=(224, 224) if full else (96, 96),
            window=10 if full else 2,
            chunk=chunk,
            normalization=dict(action=scaling, proprio="mean_std"),
            text=dict(length=77 if full else 16, model="weights/clip" if full else ""),
            batch_size=64 if full else 4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image=dict(shared=image),
            tokens=dict(shared=dict(name="resampled", resampler=resampler)),
            text=text,
            proprio=dict(name="arm_gripper", width=width),
            trunk=dict(name="gr1", num_readouts=chunk, **layers),
            head=dict(
                name="regression",
                decoder=dict(
                    name="readout_decoder", chunk=chunk, widths=(width // 2,) * 2
                ),
                **action,
            ),
        ),
        optimizer=dict(
            learning_rate=3e-4 if full else 1e-3,
            warmup_steps=2000 if full else 1 if debug else 100,
            weight_decay=1e-4,
        ),
        train=train,
        evaluation=dict(execute=1)
        if full
        else dict(primary="topview", horizon=150, execute=4),
    )
    if refine:
        layers = sizes(width, 8 if full else 1 if debug else 2, num_heads)
        decoder = dict(name="query_decoder", chunk=chunk, **layers)
        config = add_refinement(
            config,
            dict(name="regression", decoder=decoder, zero_init=True, **action),
            steps=80_000 if full else 2 if debug else 1000,
            optimizer=dict(learning_rate=1e-4 if full else 3e-4),
        )
    return ConfigDict(config)


CALVIN = dict(path="data/calvin/1.0.0", spec="calvin")
METAWORLD = dict(path="runs/quickstart/data/metaworld/1.0.0", spec="metaworld")
SHIFTS = dict(primary=10, wrist=4)  # pixels of the random shifts at full size


def sizes(width: int, num_layers: int, num_heads: int) -> dict:
    layers = dict(num_layers=num_layers, num_heads=num_heads)
    return dict(width=width, mlp_width=4 * width, **layers)


def parts(full: bool, width: int) -> tuple[dict, dict, dict]:
    """Vision tower, resampler and text tower."""
    if full:
        tower = dict(patch=16, image_size=224, width=768, num_layers=12, num_heads=12)
        latents = dict(num_latents=9, num_layers=3, num_heads=4, head_dim=128)
        text = {}
    else:
        layers = dict(width=width, num_layers=1, num_heads=4)
        tower = dict(patch=24, image_size=96, **layers)
        latents = dict(num_latents=4, num_layers=1, num_heads=2, head_dim=width // 2)
        text = dict(vocab_size=2048, length=16, projection=width, **layers)
    return (
        dict(name="vit", **tower),
        dict(name="perceiver", **latents),
        dict(name="clip_text", **text),
    )
