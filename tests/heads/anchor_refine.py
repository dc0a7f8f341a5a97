"""Tiny AnchorRefine policies without cameras, one for each kind of head."""

from tests.fake_batch import make_batch, policy_config

CHUNK, ACTION, GRIPPER = 2, 3, (2,)
SHARED = dict(chunk=CHUNK, action_dim=ACTION, gripper_dims=GRIPPER)
DIT = dict(
    name="dit",
    chunk=CHUNK,
    action_dim=ACTION,
    width=8,
    num_layers=1,
    num_heads=2,
    mlp_width=8,
    time=dict(name="sinusoidal", width=8),
)
ANCHORS = {
    "regression": dict(name="regression", width=8, element_loss="smooth_l1", **SHARED),
    "flow": dict(name="flow", denoiser=DIT, num_steps=2, **SHARED),
    "diffusion": dict(
        name="diffusion", denoiser=DIT, num_timesteps=4, num_steps=4, **SHARED
    ),
}
DECODER = dict(
    name="query_decoder",
    chunk=CHUNK,
    width=8,
    num_layers=1,
    num_heads=2,
    mlp_width=8,
)
REFINES = {
    "regression": dict(
        name="regression",
        decoder=DECODER,
        element_loss="smooth_l1",
        zero_init=True,
        **SHARED,
    ),
    "flow": {**ANCHORS["flow"], "prediction": "sample"},
    "diffusion": {**ANCHORS["diffusion"], "prediction": "sample", "clip": 5.0},
}
ANCHOR_PHASE = dict(
    name="anchor", steps=2, loss_weights=dict(refine=0.0), freeze=("head/refine",)
)
REFINE_PHASE = dict(
    name="refine",
    steps=2,
    loss_weights=dict(anchor=0.0),
    freeze=("(?!head/refine|residual_scale).*",),
)


def config(kind, **fields):
    """The model section; generative refinements are scaled."""
    base = policy_config(chunk=CHUNK, action_dim=ACTION)
    head = dict(
        name="hierarchical",
        anchor=ANCHORS[kind],
        refine=REFINES[kind],
        scale_residual=kind != "regression",
    )
    return {
        **base,
        "image": {},
        "tokens": {},
        "text": {**base["text"], "num_layers": 0},
        "trunk": {**base["trunk"], "num_layers": 0},
        "head": {**head, **fields},
    }


def batch(seed=0, size=3):
    """Actions with a recorded gripper of 0 or 1; the last step is not real."""
    made = make_batch(seed, batch=size, chunk=CHUNK, action_dim=ACTION, cameras=())
    gripper = (made.action[..., -1:] > 0).astype(made.action.dtype)
    return made.replace(action=made.action.at[..., -1:].set(gripper))
