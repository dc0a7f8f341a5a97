r"""AnchorRefine and its ablations on ten Meta-World tasks, on two CPU cores.

    python launch/collect.py --out=runs/ten/data --episodes=40 --image_size=96 \
        --primary=topview --action_noise=0.3 --tasks=assembly,basketball,box-close,\
    door-open,drawer-open,hammer,peg-insert-side,pick-place,shelf-place,sweep-into
    python launch/train.py --config=configs/anchorrefine.py:flow --workdir=runs/ten/flow

The argument is a list of words: a profile (regression by default), at most one of
`ABLATIONS`, and `debug`, such as `regression,explicit`. The checkpoint at the end of
the first phase is the base policy: `launch/evaluate.py --step=2000`.
"""

from ml_collections import ConfigDict

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
    words = [word for word in arg.split(",") if word]
    chosen = [[w for w in words if w in part] for part in (PROFILES, ABLATIONS)]
    known = (*PROFILES, *ABLATIONS, "debug")
    if not set(words) <= set(known) or max(map(len, chosen)) > 1:
        raise ValueError(f"Unknown variant {arg!r}; choose words of {known}.")
    debug, (profile, ablation) = "debug" in words, map("".join, chosen)
    profile = profile or "regression"
    width = 16 if debug else 128
    anchor_steps, refine_steps = (2, 2) if debug else (2000, 800)
    head = dict(
        name="hierarchical",
        anchor=part(profile, width),
        refine=part(profile, width, refine=True),
        scale_residual=profile != "regression",
        **ABLATIONS.get(ablation, {}),
    )
    added = "head/(refine|anchor_tokens)|residual_scale"
    parts = ["head/refine"] + ["head/anchor_tokens"] * (ablation == "explicit")
    parts += ["residual_scale"] * (profile != "regression")
    anchor_phase = dict(
        name="anchor",
        steps=anchor_steps,
        loss_weights=dict(refine=0.0),
        freeze=tuple(parts),
    )
    refine_phase = dict(
        name="refine",
        steps=refine_steps,
        loss_weights=dict(anchor=0.0),
        freeze=() if ablation == "not_detached" else (f"(?!{added}).*",),
        optimizer=dict(learning_rate=3e-4),
        from_average=True,
    )
    phases = (anchor_phase, refine_phase)
    if ablation == "deeper":
        head = part(profile, width, num_layers=4)
        phases = (dict(name="anchor", steps=anchor_steps + refine_steps),)
    cameras = ("primary", "wrist")
    widths = (8, 8, 8) if debug else (32, 64, 64)
    encoder = dict(name="conv", patch=4, widths=widths, strides=(2, 1))
    tokens = dict(name="flat", level="stage2", width=width)
    bounded = profile == "diffusion"  # which clips what it estimates to -1..1
    config = dict(
        seed=0,
        data=dict(
            datasets=(dict(path="runs/ten/data/metaworld/1.0.0", spec="metaworld"),),
            cameras=cameras,
            image_size=(96, 96),
            window=1,
            chunk=CHUNK,
            normalization=dict(
                action="min_max" if bounded else "mean_std", proprio="mean_std"
            ),
            text=dict(length=16, model=""),
            batch_size=4 if debug else 32,
            num_threads=2,
            prefetch=4,
        ),
        model=dict(
            name="policy",
            image={camera: dict(encoder) for camera in cameras},
            tokens={camera: dict(tokens) for camera in cameras},
            text=dict(
                name="text_transformer", vocab_size=2048, width=width, num_layers=0
            ),
            trunk=dict(
                name="blockwise",
                width=width,
                num_layers=1 if debug else 2,
                num_heads=4,
                mlp_width=4 * width,
            ),
            head=head,
        ),
        optimizer=dict(
            learning_rate=1e-3,
            warmup_steps=2 if debug else 100,
            final_scale=0.01,
            weight_decay=1e-4,
        ),
        train=dict(
            phases=phases,
            log_every=2 if debug else 50,
            save_every=1 if debug else 500,
            eval_every=2 if debug else 400,
            eval_batches=1 if debug else 8,
            ema_decay=0.995,
            augment=dict(shift=2, brightness=0.05, contrast=0.1),
        ),
        evaluation=dict(primary="topview", horizon=150, execute=8),
    )
    return ConfigDict(config)


def part(
    profile: str, width: int, *, refine: bool = False, num_layers: int = 2
) -> dict:
    """One head of a profile: the anchor, or the refinement, which starts at zero."""
    sizes = dict(num_layers=num_layers, num_heads=4, mlp_width=4 * width, width=width)
    shared = dict(chunk=CHUNK, action_dim=ACTION_DIM, gripper_dims=GRIPPER)
    if profile == "regression":
        decoder = dict(name="query_decoder", chunk=CHUNK, **sizes)
        fields = dict(element_loss="smooth_l1", zero_init=refine)
        return dict(name="regression", decoder=decoder, **fields, **shared)
    flows = profile == "flow"
    periods = dict(min_period=4e-3, max_period=4.0) if flows else {}
    time = dict(name="sinusoidal", width=width, **periods)
    network = dict(name="dit", time=time, chunk=CHUNK, action_dim=ACTION_DIM, **sizes)
    process = dict(prediction="sample") if refine else {}
    if not flows:
        process |= dict(sampler="ddim", num_steps=10)
        process |= dict(clip=5.0) if refine else {}
    return dict(name=profile, denoiser=network, **process, **shared)
