r"""AnchorRefine and its ablations on ten Meta-World tasks, on two CPU cores.

    python launch/collect.py --out=runs/ten/data --episodes=60 --image_size=96 \
        --primary=topview --action_noise=0.3 --tasks=assembly,basketball,box-close,\
    door-open,drawer-open,hammer,peg-insert-side,pick-place,shelf-place,sweep-into
    python launch/train.py --config=configs/anchorrefine.py:flow --workdir=runs/ten/flow

The argument is a list of words: a profile (regression by default), at most one of
`ABLATIONS`, and `debug`, such as `regression,explicit`. What the first phase saved last
is the base policy: `launch/evaluate.py --step=6000`. With `second_phase` only that
phase is trained, on the anchor that the run of its profile has saved:

    python launch/train.py --config=configs/anchorrefine.py:explicit,second_phase \
        --workdir=runs/ten/explicit
"""

from ml_collections import ConfigDict

from vla_jax.names import choose_words
from vla_jax.train.refinement import add_refinement

CHUNK, ACTION_DIM, GRIPPER = 16, 4, (3,)
PROFILES = ("regression", "flow", "diffusion")
# Table 2 of the paper, as fields of the head. "deeper" has one phase and the
# parameters of both.
ABLATIONS = dict(
    no_gripper=dict(gripper_target=None),
    naive_gripper=dict(gripper_target="difference"),
    not_detached=dict(detach=False),
    explicit=dict(explicit=True),
    direct=dict(target="action"),
    deeper=dict(),
)


def get_config(arg: str = "") -> ConfigDict:
    """The config that the words of `arg` describe."""
    profile, ablation, debug, second = choose_words(
        arg, PROFILES, ABLATIONS, ("debug",), ("second_phase",)
    )
    if second and ablation == "deeper":
        raise ValueError("There is no second_phase of 'deeper', which has one phase.")
    profile = profile or "regression"
    width, anchor_steps, refine_steps = (16, 2, 2) if debug else (128, 6000, 2400)
    head, trunk = part(profile, width), sizes(width, 1 if debug else 2)
    if profile == "regression":
        trunk["num_readouts"] = CHUNK
    if ablation == "deeper":
        anchor_steps += refine_steps
        if profile == "regression":
            trunk["num_layers"] += 3
        else:
            head = part(profile, width, num_layers=4)
    cameras = ("primary", "wrist")
    widths = (8, 8, 8) if debug else (32, 64, 64)
    encoder = dict(name="conv", patch=4, widths=widths, strides=(2, 1))
    tokens = dict(name="flat", level="stage2", width=width)
    text = dict(name="text_transformer", vocab_size=2048, num_layers=0)
    scaling = "min_max" if profile == "diffusion" else "mean_std"
    config = dict(
        seed=0,
        data=dict(
            datasets=(dict(path="runs/ten/data/metaworld/1.0.0", spec="metaworld"),),
            cameras=cameras,
            image_size=(96, 96),
            window=1,
            chunk=CHUNK,
            normalization=dict(action=scaling, proprio="mean_std"),
            text=dict(length=16, model=""),
            batch_size=4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image={camera: dict(encoder) for camera in cameras},
            tokens={camera: dict(tokens) for camera in cameras},
            text=dict(**text, width=width),
            trunk=dict(name="blockwise", **trunk),
            head=head,
        ),
        optimizer=dict(
            learning_rate=1e-3,
            warmup_steps=2 if debug else 100,
            final_scale=0.01,
            weight_decay=1e-4,
        ),
        train=dict(
            steps=anchor_steps,
            save_every=1 if debug else 1000,
            eval_every=2 if debug else 600,
            ema_decay=0.995,
            augment=dict(shift=2, brightness=0.05, contrast=0.1),
        ),
        evaluation=dict(primary="topview", horizon=150, execute=8),
    )
    if ablation != "deeper":
        config = add_refinement(
            config,
            part(profile, width, refine=True),
            steps=refine_steps,
            fields=dict(
                scale_residual=profile != "regression", **ABLATIONS.get(ablation, {})
            ),
            optimizer=dict(learning_rate=3e-4),
        )
    if second:
        # Loaded is the average already, which `from_average` would ask for.
        phase = dict(config["train"]["phases"][1], from_average=False)
        anchor = dict(initial_checkpoint=f"runs/ten/{profile}")
        anchor |= dict(initial_step=anchor_steps)
        config["train"] = dict(config["train"], phases=(phase,), **anchor)
    return ConfigDict(config)


def part(profile: str, width: int, *, refine: bool = False, num_layers: int = 2):
    """The anchor's head of a profile, or its refinement, which starts at zero."""
    shared = dict(chunk=CHUNK, action_dim=ACTION_DIM, gripper_dims=GRIPPER)
    if profile == "regression":
        # As in GR-1, the anchor is a perceptron on one readout for each action.
        decoder = dict(name="readout_decoder", chunk=CHUNK, widths=(width // 2,) * 2)
        if refine:
            layers = sizes(width, num_layers)
            decoder = dict(name="query_decoder", chunk=CHUNK, **layers)
        fields = dict(element_loss="smooth_l1", zero_init=refine)
        return dict(name="regression", decoder=decoder, **fields, **shared)
    periods = dict(min_period=4e-3, max_period=4.0) if profile == "flow" else {}
    time = dict(name="sinusoidal", width=width, **periods)
    network = dict(chunk=CHUNK, action_dim=ACTION_DIM, **sizes(width, num_layers))
    # An anchor that draws leaves its draw to be corrected besides its mistakes, and of
    # residuals it is the mean that corrects: one step.
    fields = dict(denoiser=dict(name="dit", time=time, **network), temperature=0.0)
    fields |= dict(num_steps=1 if refine else 10)
    fields |= dict(prediction="sample") if refine else {}
    if profile == "diffusion":
        fields |= dict(sampler="ddim", clip=5.0 if refine else 1.0)
    return dict(name=profile, **fields, **shared)


def sizes(width: int, num_layers: int) -> dict:
    return dict(width=width, num_layers=num_layers, num_heads=4, mlp_width=4 * width)
