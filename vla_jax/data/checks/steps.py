"""Checks of the recording itself: flags, clock, repeated steps, pictures that freeze.

These need the raw episodes, which are read one at a time.
"""

from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.checks.recording import Recording, measure_recording
from vla_jax.data.rlds import open_rlds

_UNITS = (1.0, 1e-3, 1e-6, 1e-9)  # seconds per unit of a clock
_REPEATED = 0.05  # share of steps from which on it is worth a warning


def check_recordings(sample: Sample) -> Iterator[Finding]:
    """All checks of this file."""
    folder = open_rlds(sample.index.data_path)
    numbers = sample.episodes.tolist()
    recordings = [
        measure_recording(sample, folder, number)
        for number in sample.track(numbers, "episodes")
    ]
    yield _check_flags(recordings)
    yield _check_clock(recordings, sample.index.spec.control_hz)
    yield _check_repeated(recordings)
    for camera in sample.index.cameras:
        yield _check_frozen(recordings, camera)
    yield _check_finite(recordings)


def _check_flags(recordings: list[Recording]) -> Finding:
    total = len(recordings)
    inner = [r.number for r in recordings if r.inner]
    if inner:
        return Finding(
            "error",
            "step flags",
            f"{len(inner)} of {total} sampled episodes have is_first or is_last set in "
            "their midst: they are several episodes in one, and chunks of actions "
            "would run from one into the next.",
            "Split them when the data set is written.",
            some(inner),
        )
    ends = [r.number for r in recordings if r.ends]
    if ends:
        return Finding(
            "warning",
            "step flags",
            f"{len(ends)} of {total} sampled episodes lack is_first at their first or "
            "is_last at their last step.",
            "Other readers of RLDS rely on them; check that no episode is cut.",
            some(ends),
        )
    early = [r.number for r in recordings if r.early]
    if early:
        return Finding(
            "warning",
            "step flags",
            f"{len(early)} of {total} sampled episodes go on after is_terminal.",
            "Check where they end, and cut what comes after it.",
            some(early),
        )
    if not any(r.has_flags for r in recordings):
        return Finding(
            "skipped", "step flags", "There is no is_first, is_last or is_terminal."
        )
    return Finding(
        "ok", "step flags", "is_first, is_last and is_terminal stand where they should."
    )


def _check_clock(recordings: list[Recording], control_hz: float) -> Finding:
    timed = [r for r in recordings if np.isfinite(r.interval)]
    if not timed:
        return Finding(
            "skipped",
            "control rate",
            f"No feature is a clock, so the declared {control_hz:g} Hz cannot be "
            "checked.",
        )
    backwards = [r.number for r in timed if r.backwards]
    if backwards:
        return Finding(
            "warning",
            "control rate",
            f"The clock stands still or goes back in {len(backwards)} of {len(timed)} "
            "sampled episodes.",
            "Check the order of the steps and the clock's type: float32 cannot hold "
            "seconds since 1970.",
            some(backwards),
        )
    interval = float(np.median([r.interval for r in timed]))
    # Of the possible units, the one that comes nearest to what is declared.
    rates = [1 / (interval * unit) for unit in _UNITS]
    rate = min(rates, key=lambda hz: abs(np.log(hz / control_hz)))
    if not 0.8 < rate / control_hz < 1.25:
        return Finding(
            "warning",
            "control rate",
            f"Clocks say {rate:.3g} Hz; the spec declares {control_hz:g} Hz.",
            "Correct `control_hz` in the spec.",
            some(r.number for r in timed),
        )
    pauses = [r.number for r in timed if r.pause > 5 * r.interval]
    if pauses:
        return Finding(
            "warning",
            "control rate",
            f"{len(pauses)} of {len(timed)} sampled episodes have a step that takes "
            "over five times as long as usual.",
            "Steps were lost, or the recording paused: split episodes there.",
            some(pauses),
        )
    return Finding(
        "ok",
        "control rate",
        f"Clocks say {rate:.3g} Hz; the spec declares {control_hz:g} Hz.",
    )


def _check_repeated(recordings: list[Recording]) -> Finding:
    steps = sum(r.num_steps for r in recordings)
    repeated = sum(r.repeated for r in recordings)
    share = repeated / steps
    if share > _REPEATED:
        worst = sorted(recordings, key=lambda r: -r.repeated / r.num_steps)
        return Finding(
            "warning",
            "repeated steps",
            f"{share:.0%} of the sampled steps repeat the step before, with the same "
            "action, proprio and images.",
            "Leave them out when the data set is written: the policy would learn to "
            "wait.",
            some(r.number for r in worst if r.repeated),
        )
    return Finding(
        "ok", "repeated steps", f"{share:.1%} of the sampled steps repeat another."
    )


def _check_frozen(recordings: list[Recording], camera: str) -> Finding:
    moved = sum(r.moved for r in recordings)
    frozen = sum(r.frozen[camera] for r in recordings)
    still = [
        r.number for r in recordings if r.moved > 3 and r.frozen[camera] == r.moved
    ]
    if still:
        return Finding(
            "warning",
            "frozen images",
            f"Camera {camera!r} shows the same image throughout {len(still)} of "
            f"{len(recordings)} sampled episodes, though the robot moves.",
            "The camera hung: leave these episodes out.",
            some(still),
        )
    share = frozen / max(moved, 1)
    if share > _REPEATED:
        worst = sorted(recordings, key=lambda r: -r.frozen[camera] / r.num_steps)
        return Finding(
            "warning",
            "frozen images",
            f"Camera {camera!r} shows the image of the step before in {share:.0%} of "
            "the sampled steps in which the robot moves.",
            "The camera hangs or is slower than the control rate: keep only steps "
            "with a new image.",
            some(r.number for r in worst if r.frozen[camera]),
        )
    return Finding(
        "ok", "frozen images", f"Images of camera {camera!r} change as the robot moves."
    )


def _check_finite(recordings: list[Recording]) -> Finding:
    bad = [r for r in recordings if r.not_finite]
    if not bad:
        return Finding("ok", "raw numbers", "All raw numbers are finite.")
    keys = sorted({key for r in bad for key in r.not_finite})
    return Finding(
        "warning",
        "raw numbers",
        f"{keys} hold NaN or infinity in {len(bad)} of {len(recordings)} sampled "
        "episodes; the standardize function does not take them into actions, proprio "
        "or poses.",
        "Keep them out of what training reads.",
        some(r.number for r in bad),
    )
