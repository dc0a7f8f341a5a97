"""How actions go together with the motion that follows them, in correlations.

Positions are those of `pose`; without poses, of the proprio column with the same
number, which may mean something else, so that less can be concluded.
"""

import dataclasses

import numpy as np

from vla_jax.data.checks.covariance import Covariance
from vla_jax.data.checks.finding import Sample
from vla_jax.data.checks.rotation import into_hand
from vla_jax.data.index import Index

LAGS = (-1, 0, 1, 2)  # further steps after which the motion is looked at
_BEFORE, _AFTER = 1, 3  # steps of an episode lost to them at either end
_HAND_SIZES = (3, 6)  # dimensions of an action that moves a hand, gripper aside


@dataclasses.dataclass(frozen=True)
class Motion:
    """How actions and states go together; of `d` actions that have a state.

    Attributes:
        source: "pose", or "proprio".
        frame: "base" or "hand", whose axes the actions are along; "" for proprio.
        is_hand: whether the first three dimensions move a hand along x, y and z.
        kinds: of the actions.
        by_lag: `[lags, d, d]`, correlation with the state's change.
        level: `[d, d]`, correlation with the next state itself.
        slope: `[d, d]`, change of the state per unit of action, at the best lag.
        near: bool `[d]`, whether actions and next states have about the same range.
    """

    source: str
    frame: str
    is_hand: bool
    kinds: tuple[str, ...]
    by_lag: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    near: np.ndarray

    @property
    def lag(self) -> int:
        """Position in `LAGS` of the one that agrees best; of 0 if none does."""
        if not self._agreement.any():
            return LAGS.index(0)
        return int(np.argmax(self._agreement))

    @property
    def change(self) -> np.ndarray:
        """Correlation with the state's change at the best lag, `[d, d]`."""
        return self.by_lag[self.lag]

    @property
    def agreement(self) -> float:
        """Mean size of the correlation of relative actions at the best lag."""
        return float(self._agreement[self.lag])

    @property
    def before(self) -> float:
        """How far the motion before the action agrees better than that after it."""
        return float(self._agreement[0] - self._agreement[1:].max())

    @property
    def has_height(self) -> bool:
        """Whether the third state is sure to be the height of the hand."""
        straight = np.diag(self.change)[:3]
        return self.source == "pose" or (
            self.is_hand and len(straight) == 3 and bool((straight > 0.5).all())
        )

    @property
    def _agreement(self) -> np.ndarray:
        relative = np.array([kind == "relative" for kind in self.kinds])
        sizes = np.abs(np.diagonal(self.by_lag, axis1=1, axis2=2))
        return sizes[:, relative].mean(1) if relative.any() else np.zeros(len(LAGS))


def measure_motion(sample: Sample) -> Motion | None:
    """Correlates actions with states; None where there is nothing to correlate."""
    kinds = sample.index.spec.action
    is_hand = sum(kind != "gripper" for kind in kinds) in _HAND_SIZES
    if sample.index.pose is None or not is_hand:
        return _measure(sample, "proprio", "", is_hand)
    base = _measure(sample, "pose", "base", is_hand)
    hand = _measure(sample, "pose", "hand", is_hand)
    # Where the hand hardly turns, both agree: then it is the base.
    sure = base and hand and hand.agreement > base.agreement + 0.1
    return hand if sure else base


def usual_actions(index: Index, steps: slice) -> np.ndarray:
    """Actions `[t, a]`, outliers brought near: else they alone make a correlation."""
    stats = index.statistics["action"]
    span = stats.q99 - stats.q01
    return np.clip(index.action[steps], stats.q01 - span, stats.q99 + span)


def _measure(sample: Sample, source: str, frame: str, is_hand: bool) -> Motion | None:
    index = sample.index
    moving = sum(kind != "gripper" for kind in index.spec.action)
    states = index.pose if source == "pose" else index.proprio
    width = min(moving, 3 if source == "pose" else states.shape[1])
    changes, level = [Covariance() for _ in LAGS], Covariance()
    for episode in sample.track(sample.episodes.tolist(), "motion"):
        steps = sample.steps(episode)
        action = usual_actions(index, steps)[_BEFORE:-_AFTER, :width]
        state = np.asarray(states[steps], np.float64)
        if not width or not len(action):
            continue
        start = np.arange(_BEFORE, _BEFORE + len(action))
        for lag, change in zip(LAGS, changes, strict=True):
            moved = (state[start + lag + 1] - state[start + lag])[:, :width]
            if frame == "hand":
                moved = into_hand(moved, state[start + lag, 3:])
            change.update(action, moved)
        level.update(action, state[start + 1, :width])
    if level.count < 10:
        return None
    mean, std, next_mean, next_std = level.moments()
    motion = Motion(
        source=source,
        frame=frame,
        is_hand=is_hand,
        kinds=index.spec.action[:width],
        by_lag=np.stack([change.correlation() for change in changes]),
        level=level.correlation(),
        slope=np.zeros((width, width)),
        near=(np.abs(mean - next_mean) < next_std)
        & (std < 3 * next_std)
        & (next_std < 3 * std),
    )
    return dataclasses.replace(motion, slope=changes[motion.lag].slope())
