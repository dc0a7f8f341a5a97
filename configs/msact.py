"""MSACT (Cai et al., 2026): ACT with attention points, on the ALOHA simulation.

    python launch/collect.py --env=aloha --tasks=transfer_cube --episodes=50 \
        --cameras=primary,secondary --out=runs/aloha/data
    python launch/train.py --config=configs/msact.py --workdir=runs/msact

It is `configs/act.py` with the cameras `top` and `angle`, six points on each as tokens,
and the loss that aligns foreseen points with those of four later frames. Full size is
for a GPU, also with one camera, `:top`. `:small` is for two CPU cores, one camera and
one later frame; `configs/act.py` says how its pictures are recorded. Half of its
samples hide the points, or none with `:small,always_points`. What the paper leaves open
is a field of `model.attention` or `data.labels`; docs/fidelity.md lists it.

    python launch/visualize.py points --checkpoint=runs/msact \
        --data_dir=runs/aloha/data/aloha/1.0.0 --out=points.mp4
"""

from ml_collections import ConfigDict

from vla_jax.names import choose_words

VARIANTS = ("", "top", "small", "debug")


def get_config(arg: str = "") -> ConfigDict:
    """The config; `:top` has one camera, `:small` is for two CPU cores."""
    variant, always = choose_words(arg, VARIANTS[1:], ("always_points",))
    full, debug = variant in ("", "top"), variant == "debug"
    chunk = 8 if debug else 100
    width = 512 if full else 16 if debug else 128
    last = "layer4" if full else "layer1" if debug else "layer3"
    steps = 4 if debug else 10_000
    two = variant == ""
    cameras = ("primary", "secondary") if two else ("primary",)
    spec = "aloha_sim_two_views" if two else "aloha_sim"
    layers = dict(
        width=width,
        num_layers=4 if full else 1 if debug else 2,
        num_heads=8 if full else 4,
        mlp_width=3200 if full else 2 * width,
        dropout=0.1 if full else 0.0,
    )
    levels = ("layer1",) if debug else ("layer1", "layer2", "layer3")
    maps = dict(
        name="multistage_maps",
        stages=dict(name="level_stages", levels=levels),
        num_points=2 if debug else 6,
        key="image",
        combine="mean",
        norm="instance",
        temperature=0.05 if full else 0.3,
        start="random" if full else "opponent",
    )
    points = dict(
        name="attention_points",
        cameras=cameras,
        maps=dict(shared=maps),
        width=width,
        embed="shared" if full else "sine",
        gather="",
        dropout=0.0 if full or always else 0.5,
        future=dict(name="future_points", chunk=chunk, target="both"),
    )
    slow = (("attention_0/maps_shared", 0.1),)
    ramp = dict(start=1e-4, stop=0.1, share=0.25, shape="s_curve")
    offsets = "random:4" if full else "random:1"
    weights = "weights/resnet18.pth" if full else ""
    config = dict(
        seed=0,
        data=dict(
            datasets=(dict(path="runs/aloha/data/aloha/1.0.0", spec=spec),),
            cameras=cameras,
            labels=(dict(name="future_frames", offsets=offsets, cameras=cameras),),
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
            attention=(points,),
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
            **({} if full else dict(learning_rate_scale=slow)),
        ),
        train=dict(
            steps=steps,
            loss_weights=dict(align=ramp),
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
