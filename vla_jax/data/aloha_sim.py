"""ALOHA in simulation: what `launch/collect.py --env=aloha` writes, and its like.

Absolute joint targets at 50 Hz: left arm, left gripper, right arm, right gripper. Both
grippers (1 is open) are normalized like the joints, as in ACT. The field names are
those of the published scripted sets, whose only camera is `top`; what those do not have
(poses of objects, matrices of cameras, depth) is left out for them.
"""

from collections.abc import Callable, Mapping

from vla_jax.data.oxe.language import INSTRUCTION, instructions
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.simulated import camera_matrices, optional
from vla_jax.data.spec import DatasetSpec

_TOP = {"primary": "top"}
_TWO = _TOP | {"secondary": "angle"}
_FOUR = _TWO | {"wrist": "right_wrist", "wrist_left": "left_wrist"}
_PREFIX = "steps/observation/"


def standardize_top(raw: RawEpisode) -> dict:
    """The view from the top."""
    return _standardize(raw, _TOP)


def standardize_two_views(raw: RawEpisode) -> dict:
    """The views from the top and from the front."""
    return _standardize(raw, _TWO)


def standardize_four_views(raw: RawEpisode) -> dict:
    """The views from the top, from the front and from both wrists."""
    return _standardize(raw, _FOUR)


def _standardize(raw: RawEpisode, cameras: Mapping[str, str]) -> dict:
    pictures = {name: f"{_PREFIX}{source}" for name, source in cameras.items()}
    return {
        "proprio": raw.arrays[f"{_PREFIX}state"],
        "action": raw.arrays["steps/action"],
        "language": instructions(raw, INSTRUCTION),
        "objects": optional(raw.arrays, f"{_PREFIX}objects"),
        "camera": camera_matrices(raw, pictures),
        "success": optional(raw.metadata, "episode_metadata/success"),
    }


def _spec(
    name: str,
    cameras: Mapping[str, str],
    standardize: Callable[[RawEpisode], dict],
    *,
    depth: bool = False,
) -> DatasetSpec:
    features = {camera: f"{_PREFIX}{source}" for camera, source in cameras.items()}
    return DatasetSpec(
        name=name,
        cameras=features,
        depth={c: f"{key}_depth" for c, key in features.items()} if depth else {},
        action=("absolute",) * 14,
        control_hz=50.0,
        standardize=standardize,
    )


DATASETS = {
    spec.name: spec
    for spec in (
        _spec("aloha_sim", _TOP, standardize_top),
        _spec("aloha_sim_depth", _TOP, standardize_top, depth=True),
        _spec("aloha_sim_two_views", _TWO, standardize_two_views),
        _spec("aloha_sim_two_views_depth", _TWO, standardize_two_views, depth=True),
        _spec("aloha_sim_four_views", _FOUR, standardize_four_views),
    )
}
