"""Checks of the end effector's pose, and of how actions turn it."""

from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.covariance import Covariance
from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.checks.motion import LAGS, Motion, usual_actions
from vla_jax.data.checks.rotation import turned

_FAR = 5.0  # metres; hardly an arm reaches that far
_STILL = 1e-3  # radians per step


def check_pose(sample: Sample, motion: Motion | None) -> Iterator[Finding]:
    """All checks of this file."""
    if sample.index.pose is None:
        yield Finding(
            "skipped",
            "pose",
            "The data set has no poses of the end effector.",
            "Return `pose` from the standardize function for labels, projections and "
            "more checks.",
        )
        return
    yield _check_values(sample)
    yield _check_rotation(sample, motion)


def _check_values(sample: Sample) -> Finding:
    far, bad, reach = [], [], 0.0
    for episode in sample.episodes.tolist():
        pose = sample.index.pose[sample.steps(episode)]
        distance = float(np.linalg.norm(pose[:, :3], axis=1).max())
        reach = max(reach, distance)
        if distance > _FAR:
            far.append(episode)
        if np.abs(np.linalg.norm(pose[:, 3:], axis=1) - 1).max() > 0.01:
            bad.append(episode)
    if bad:
        return Finding(
            "error",
            "pose",
            f"In {len(bad)} of {len(sample.episodes)} sampled episodes the quaternion "
            "of `pose` is not of length 1.",
            "Return x, y, z in metres, then a unit quaternion x, y, z, w.",
            some(bad),
        )
    if far:
        return Finding(
            "warning",
            "pose",
            f"The end effector is up to {reach:.4g} m from the robot's base.",
            "Positions are in metres: 1000 millimetres are 1.",
            some(far),
        )
    return Finding(
        "ok",
        "pose",
        f"Poses have unit quaternions and reach up to {reach:.2f} m from the base.",
    )


def _check_rotation(sample: Sample, motion: Motion | None) -> Finding:
    kinds = sample.index.spec.action
    turning = sum(kind != "gripper" for kind in kinds) == 6
    if motion is None or not turning or set(kinds[3:6]) != {"relative"}:
        return Finding(
            "skipped",
            "rotation",
            "Actions do not have three relative rotations as dimensions 3 to 5.",
        )
    pairs = {
        (frame, order): _pair(sample, frame, order, LAGS[motion.lag])
        for frame in ("base", "hand")
        for order in ("xyzw", "wxyz")
    }
    if any(pair is None for pair in pairs.values()):
        return Finding("skipped", "rotation", "The end effector hardly turns.")
    tables = {key: pair.correlation() for key, pair in pairs.items()}
    straight = {key: float(np.diag(t).mean()) for key, t in tables.items()}
    (frame, order), best = max(straight.items(), key=lambda item: abs(item[1]))
    plain = max(abs(straight[f, "xyzw"]) for f in ("base", "hand"))
    if order == "wxyz" and abs(best) > plain + 0.3:
        return Finding(
            "warning",
            "rotation",
            "Actions turn the end effector as they say only if the quaternion of "
            f"`pose` is w, x, y, z (correlation {best:.2f}, otherwise {plain:.2f}).",
            "Return it as x, y, z, w.",
        )
    frame = max(("base", "hand"), key=lambda f: abs(straight[f, "xyzw"]))
    best = straight[frame, "xyzw"]
    table = tables[frame, "xyzw"]
    ends = float((table[0, 2] + table[2, 0]) / 2)
    if best < -0.5:
        return Finding(
            "warning",
            "rotation",
            f"Actions turn the end effector the other way (correlation {best:.2f}).",
            "Turn the signs of dimensions 3 to 5 in the standardize function, or "
            "invert the rotations of `pose`: base from end effector.",
        )
    if ends > 0.5 and min(table[0, 0], table[2, 2]) < 0.3:
        return Finding(
            "warning",
            "rotation",
            "Dimension 3 turns the end effector about z and dimension 5 about x "
            f"(correlation {ends:.2f}).",
            "Angles seem to be in the order yaw, pitch, roll: reverse them.",
        )
    if best < 0.3:
        return Finding(
            "warning",
            "rotation",
            f"Actions and turns of the end effector do not go together (correlation "
            f"{best:.2f}).",
            "Check the frame and the unit of dimensions 3 to 5: small rotations about "
            "x, y and z in radians are expected.",
        )
    slope = np.diag(pairs[frame, "xyzw"].slope())
    metres = motion.source == "pose" and np.abs(np.diag(motion.slope) - 1).max() < 0.3
    if metres and best > 0.6 and np.abs(np.rad2deg(slope) - 1).max() < 0.3:
        return Finding(
            "warning",
            "rotation",
            "One unit of dimensions 3 to 5 turns the end effector by "
            f"{slope.mean():.3g} rad, which is a degree.",
            "Give rotations in radians: np.deg2rad.",
        )
    slopes = ", ".join(f"{value:.3g}" for value in slope)
    return Finding(
        "ok",
        "rotation",
        f"Dimensions 3 to 5 turn the end effector about the axes of the {frame} "
        f"(correlation {best:.2f}); one unit turns it by {slopes} rad.",
    )


def _pair(sample: Sample, frame: str, order: str, lag: int) -> Covariance | None:
    """Rotations of the action with turns; None if there are hardly any."""
    covariance = Covariance()
    for episode in sample.episodes.tolist():
        steps = sample.steps(episode)
        quaternion = np.asarray(sample.index.pose[steps][:, 3:], np.float64)
        if order == "wxyz":
            quaternion = np.roll(quaternion, -1, axis=1)
        action = usual_actions(sample.index, steps)[1:-3, 3:6]
        start = 1 + np.arange(len(action))
        before, after = quaternion[start + lag], quaternion[start + lag + 1]
        covariance.update(action, turned(before, after, frame=frame))
    if covariance.count < 10 or covariance.moments()[3].max() < _STILL:
        return None
    return covariance
