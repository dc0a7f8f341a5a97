"""What an anchor leaves to its refinement, drawn over recorded episodes and counted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vla_jax.data.index import Index
from vla_jax.data.statistics import action_mask, unnormalize
from vla_jax.heads.gripper import BOUNDARY, gripper_mask
from vla_jax.heads.residuals import flip_metrics, size_metrics
from vla_jax.visualize.explained import Explained, Run, explain_episodes, open_run
from vla_jax.visualize.paths import Motion, fit_motion, follow, project

_MOMENTS = 4  # chunks drawn of each episode
_FITTED = 20000  # steps from which it is learned what actions do
_COLORS = dict(action="black", anchor="tab:orange", final="tab:blue")
_RESIDUAL = "tab:red"
_CLOSEST = 0.4  # least share of a picture that is shown
_LABELS = dict(action="recorded", anchor="anchor", final="refined")


def visualize_residuals(
    checkpoint: str | Path,
    out: str | Path,
    *,
    episodes: int = 4,
    every: int = 2,
    step: int | None = None,
    data_dir: str | None = None,
) -> dict:
    """Writes a picture for each episode and `residuals.json`, for both splits.

    Args:
        checkpoint: a run with a hierarchical head.
        out: folder of the pictures.
        episodes: of each data set and split.
        every: steps from one explained chunk to the next.
        step: a saved step; the latest when None.
        data_dir: where the first data set lies now; as trained when None.

    Returns:
        The content of `residuals.json`: per split the mean norms and the covariance
        traces of chunks and residuals, and the gripper's flips per chunk.

    Raises:
        ValueError: a checkpoint that cannot be explained.
    """
    run, out = open_run(checkpoint, step=step, data_dir=data_dir), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    report = {}
    for split in ("train", "validation"):
        found = []
        for explained in tqdm(
            explain_episodes(run, split, episodes=episodes, every=every),
            desc=split,
            unit="episode",
        ):
            draw_episode(run, explained, out / f"{split}-{explained.name}.png")
            found.append(explained._replace(image={}))
        if found:
            report[split] = summarize(found, run.gripper)
    (out / "residuals.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def summarize(
    episodes: Sequence[Explained], gripper: tuple[int, ...]
) -> dict[str, float]:
    """Mean norms, covariance traces and flips over all explained chunks."""
    action, anchor, final, mask = (
        jnp.asarray(np.concatenate([getattr(e, key) for e in episodes]))
        for key in ("action", "anchor", "final", "mask")
    )
    is_gripper = gripper_mask(action.shape[-1], gripper)
    arm = mask & ~is_gripper
    metrics = {
        **size_metrics("action", action, arm),
        **size_metrics("anchor_residual", action - anchor, arm),
        **size_metrics("final_residual", action - final, arm),
    }
    if gripper:
        metrics |= flip_metrics(anchor, final, action, mask & is_gripper)
    return {
        "chunks": len(action),
        **{name: float(jnp.mean(value)) for name, value in metrics.items()},
    }


def format_report(report: Mapping[str, Mapping[str, float]]) -> str:
    """The numbers of `summarize` as a text table, one column for each split."""
    names = list(next(iter(report.values()), {}))
    width = max(map(len, names), default=0)
    lines = [" " * width + "".join(f"{split:>12}" for split in report)]
    lines += [
        f"{name:{width}}" + "".join(f"{report[s][name]:12.4g}" for s in report)
        for name in names
    ]
    return "\n".join(lines)


def draw_episode(run: Run, explained: Explained, path: Path) -> None:
    """Draws one episode: pictures with paths, dimensions over time, the gripper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    index = run.source.indexes[explained.dataset]
    kinds = index.spec.action
    arm = [d for d in range(len(kinds)) if d not in run.gripper]
    moments = np.unique(np.linspace(0, len(explained.step) - 1, _MOMENTS).astype(int))
    cameras = list(explained.image)[:1]
    num_rows = len(arm) + len(run.gripper) + 1 + bool(cameras)
    figure = Figure(figsize=(12, 1.7 * num_rows + bool(cameras)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [2.2] * bool(cameras) + [1.0] * (num_rows - bool(cameras))
    grid = figure.add_gridspec(num_rows, len(moments), height_ratios=heights)
    chunks = {key: _in_units(run, explained, key) for key in _COLORS}
    top = 0
    for camera in cameras:
        motion = _motion(index)
        for column, moment in enumerate(moments):
            axes = figure.add_subplot(grid[top, column])
            axes.imshow(explained.image[camera][moment])
            axes.set(xticks=[], yticks=[], title=f"step {explained.step[moment]}")
            if motion is not None:
                paths = {
                    key: chunk[moment][explained.mask[moment, :, 0]]
                    for key, chunk in chunks.items()
                }
                row = explained.row[moment]
                _draw_paths(axes, run, index, camera, motion, row, paths)
        top += 1
    for row, dim in enumerate(arm, top):
        axes = figure.add_subplot(grid[row, :])
        _draw_dimension(axes, explained, chunks, moments, dim)
        axes.set_ylabel(f"action {dim}")
        if row == top:
            axes.legend(
                frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 0.95)
            )
    for row, dim in enumerate(run.gripper, top + len(arm)):
        _draw_gripper(figure.add_subplot(grid[row, :]), explained, dim)
    axes = figure.add_subplot(grid[num_rows - 1, :])
    real = explained.mask & ~gripper_mask(explained.mask.shape[-1], run.gripper)
    for key in ("anchor", "final"):
        missing = np.where(real, explained.action - getattr(explained, key), 0)
        norm = np.sqrt(np.square(missing).sum((1, 2)))
        axes.plot(explained.step, norm, color=_COLORS[key], label=_LABELS[key])
    axes.set(xlabel="step", ylabel="error of chunk")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=90)


def _in_units(run: Run, explained: Explained, key: str) -> np.ndarray:
    """Chunks in the units of the data set."""
    kinds = run.source.indexes[explained.dataset].spec.action
    return unnormalize(
        getattr(explained, key)[..., : len(kinds)],
        run.source.statistics[explained.dataset]["action"],
        run.source.normalization["action"],
        mask=action_mask(kinds),
    )


def _motion(index: Index) -> Motion | None:
    """How actions move the hand; None where the data set does not tell."""
    if index.pose is None or not index.camera_matrices:
        return None
    pose, action = index.pose[:_FITTED, :3], index.action[:_FITTED]
    first = np.zeros(len(pose), bool)
    first[index.first_step[index.first_step < len(pose)]] = True
    return fit_motion(pose, action, first, index.spec.action)


def _draw_paths(axes, run, index, camera, motion, row, paths) -> None:
    """The ways of the hand that chunks would take, in the picture of step `row`."""
    from vla_jax.data.resize import scale_intrinsics

    matrices = index.camera_matrices.get(camera)
    if matrices is None:
        return
    intrinsics = scale_intrinsics(
        matrices["intrinsics"][row], index.image_size(camera), run.source.image_size
    )
    height, width = run.source.image_size
    ways = {}
    for key, chunk in paths.items():
        way = follow(motion, index.pose[row, :3], chunk)
        ways[key] = project(way, intrinsics, matrices["extrinsics"][row]) - 0.5
        axes.plot(*ways[key].T, color=_COLORS[key], linewidth=1.5)
    for ends in zip(ways["anchor"], ways["final"], strict=True):
        axes.plot(*np.transpose(ends), color=_RESIDUAL, linewidth=0.7)
    x, y, side = _window(np.concatenate(list(ways.values())), width, height)
    axes.set(xlim=(x - 0.5, x + side - 0.5), ylim=(y + side - 0.5, y - 0.5))


def _window(points: np.ndarray, width: int, height: int) -> tuple[float, float, float]:
    """Left, top and side of the square part of a picture that shows the points.

    A chunk covers a few centimetres of a scene of a metre.
    """
    points = points[np.isfinite(points).all(1)]
    whole = float(min(width, height))
    if not len(points):
        return 0.0, 0.0, whole
    low, high = points.min(0), points.max(0)
    side = float(np.clip(1.5 * (high - low).max(), _CLOSEST * whole, whole))
    corner = np.clip((low + high - side) / 2, 0, np.subtract((width, height), side))
    return float(corner[0]), float(corner[1]), side


def _draw_dimension(axes, explained, chunks, moments, dim) -> None:
    """One dimension of the recorded actions, and of the chunks at some moments."""
    recorded = chunks["action"][:, 0, dim]
    axes.plot(explained.step, recorded, color=_COLORS["action"], label="recorded")
    for number, moment in enumerate(moments):
        real = explained.mask[moment, :, dim]
        time = explained.step[moment] + np.arange(len(real))
        for key in ("anchor", "final"):
            label = None if number else _LABELS[key]
            values = chunks[key][moment, :, dim]
            axes.plot(time[real], values[real], color=_COLORS[key], label=label)
        ends = [chunks[key][moment, real, dim] for key in ("anchor", "final")]
        label = None if number else "residual"
        axes.fill_between(time[real], *ends, color=_RESIDUAL, alpha=0.3, label=label)


def _draw_gripper(axes, explained: Explained, dim: int) -> None:
    """The gripper's probability before and after, and where its decision moved."""
    recorded, anchor, final = (
        getattr(explained, key)[:, 0, dim] for key in ("action", "anchor", "final")
    )
    axes.plot(explained.step, recorded, color=_COLORS["action"], drawstyle="steps-post")
    axes.plot(explained.step, anchor, color=_COLORS["anchor"])
    axes.plot(explained.step, final, color=_COLORS["final"])
    axes.axhline(BOUNDARY, color="gray", linewidth=0.7, linestyle="dashed")
    before, after = anchor > BOUNDARY, final > BOUNDARY
    right = after == (recorded > BOUNDARY)
    for chosen, color in ((right, "tab:green"), (~right, "tab:red")):
        moved = (before != after) & chosen
        axes.plot(explained.step[moved], final[moved], "o", color=color)
    axes.set_ylabel("gripper")
    axes.set_ylim(min(-0.05, final.min()), max(1.05, final.max()))
