"""Demonstrations of the scripted experts, written as an RLDS data set.

An attempt is a pure function of (seed, task, number). Of each task the first attempts
that succeed are kept, in the order of their numbers, so the data set does not depend on
the number of workers. Every attempt is staged in a file of its own as soon as it ends;
a collection that was interrupted continues with the attempts that are missing.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vla_jax.data.write import RLDSWriter, encode_episode
from vla_jax.simulation.demonstration import (
    METADATA_FEATURES,
    Recipe,
    collect_episode,
    step_features,
)
from vla_jax.simulation.environment import (
    Environment,
    NoSkill,
    check_tasks,
    dataset_name,
    fixed_starts,
    make_environment,
    require_installed,
)
from vla_jax.simulation.gl import ensure_gl
from vla_jax.simulation.plan import TaskPlan
from vla_jax.simulation.settings import require_same_settings
from vla_jax.simulation.workers import Workers

VERSION = "1.0.0"
EPISODES_PER_SHARD = 64


def collect(
    out: str | os.PathLike,
    tasks: Sequence[str],
    *,
    episodes: int = 25,
    val_fraction: float = 0.1,
    workers: int = 2,
    recipe: Recipe = Recipe(),
    progress: bool = True,
) -> tuple[Path, dict]:
    """Collects demonstrations, or continues a collection that was interrupted.

    Args:
        out: folder that will hold `<data set>/1.0.0/`.
        tasks: names of the tasks.
        episodes: successful episodes kept of each task.
        val_fraction: share of them that goes to the split "val", at least one of each
            task unless it is 0.
        workers: processes; the result does not depend on their number.
        recipe: what the attempts depend on.
        progress: show a progress bar.

    Returns:
        The version folder, and a report: `{"settings": ..., "tasks": {task: {"kept",
        "attempts", "mean_steps"}}}`.

    Raises:
        ValueError: unknown tasks, or a folder collected with other settings.
        WorkerError: a worker failed or died; what was collected is kept.
    """
    require_installed(recipe.environment)
    tasks = check_tasks(recipe.environment, tasks)
    if episodes < 1 or workers < 1 or not 0 <= val_fraction < 1:
        raise ValueError(
            f"episodes is {episodes}, workers {workers}, val_fraction {val_fraction}; "
            "expected at least 1, at least 1 and a share from 0 to below 1."
        )
    out = Path(out)
    settings = {
        "tasks": list(tasks),
        "episodes": episodes,
        "val_fraction": val_fraction,
        # Through JSON once, so that tuples and lists compare equal.
        **json.loads(json.dumps(dataclasses.asdict(recipe))),
    }
    name = dataset_name(recipe.environment, tasks)
    folder = out / name / VERSION
    staging = out / ".staging" / _fingerprint(recipe)
    final, pending = folder / "collection.json", staging / "collection.json"
    if not final.exists():
        if not folder.exists():
            plans = {task: TaskPlan(staging / task, episodes) for task in tasks}
            _play(plans, staging, recipe, workers, progress)
            counts = {task: plan.report() for task, plan in plans.items()}
            report = {"settings": settings, "tasks": counts}
            pending.write_text(json.dumps(report, indent=2) + "\n")
            _assemble(out, name, plans, val_fraction, recipe)
        elif not pending.exists():
            raise ValueError(
                f"{folder} exists and was not written by this collection: delete it "
                "or choose another --out."
            )
        os.replace(pending, final)
    report = json.loads(final.read_text())
    require_same_settings(folder, report["settings"], settings)
    if staging.exists():
        shutil.rmtree(staging)
        if not any(staging.parent.iterdir()):
            staging.parent.rmdir()
    return folder, report


def rehearse(
    tasks: Sequence[str],
    *,
    attempts: int,
    workers: int = 2,
    recipe: Recipe = Recipe(),
    fixed: bool = False,
    progress: bool = True,
) -> dict[str, list[tuple[int, bool]]]:
    """Plays the first attempts of a collection without cameras and keeps nothing.

    Args:
        tasks: names of the tasks.
        attempts: of each task, the first ones.
        workers: processes; the result does not depend on their number.
        recipe: what the attempts depend on.
        fixed: attempt n begins in the fixed initial state n, as published evaluations
            do, not in one that is drawn.
        progress: show a progress bar.

    Returns:
        Task to the length and the success of each attempt; to none where the expert
        has no skill for it.

    Raises:
        ValueError: unknown tasks, or too few fixed initial states.
        WorkerError: a worker failed or died.
    """
    require_installed(recipe.environment)
    tasks = check_tasks(recipe.environment, tasks)
    if fixed and attempts > (known := fixed_starts(recipe.environment)):
        raise ValueError(
            f"{attempts} attempts from fixed initial states are wanted; "
            f"{recipe.environment} has {known} of each task."
        )
    recipe = dataclasses.replace(recipe, cameras=(), depth=None)
    wanted = [(task, number) for task in tasks for number in range(attempts)]
    outcomes: dict[tuple[str, int], tuple[int, bool] | None] = {}
    playing: dict[int, tuple[str, int]] = {}
    waiting = wanted[::-1]
    with (
        tqdm(total=len(wanted), unit="episode", disable=not progress) as bar,
        Workers(Rehearser, [(recipe, fixed)] * workers) as pool,
    ):
        while len(outcomes) < len(wanted):
            for worker in pool.idle[: len(waiting)]:
                playing[worker] = request = waiting.pop()
                pool.submit(worker, request, f"task '{request[0]}', {request[1]}")
            for worker, outcome in pool.wait():
                outcomes[playing.pop(worker)] = outcome
                bar.update()
    return {
        task: [found for n in range(attempts) if (found := outcomes[task, n])]
        for task in tasks
    }


class Rehearser:
    """Plays attempts in a worker process; keeps the environment of the last task."""

    def __init__(self, recipe: Recipe, fixed: bool = False):
        self._recipe, self._fixed = recipe, fixed
        self._environment: Environment | None = None

    def __call__(self, request: tuple[str, int]) -> tuple[int, bool] | None:
        """Plays attempt (task, number); returns its length and success.

        None where there is no skill for the task: others have been played already.
        """
        try:
            steps, metadata = self.play(*request)
        except NoSkill:
            return None
        return len(steps["action"]), bool(metadata["success"])

    def play(self, task: str, number: int) -> tuple[dict, dict]:
        """Steps and metadata of an attempt, as `collect_episode` gives them."""
        recipe = self._recipe
        if self._environment is None or self._environment.task != task:
            self.close()
            self._environment = make_environment(
                recipe.environment,
                task,
                image_size=recipe.image_size,
                cameras=recipe.views,
                depth=bool(recipe.depth),
                primary=recipe.primary,
                horizon=recipe.horizon,
                cheap=recipe.cheap,
            )
        start = number if self._fixed else None
        return collect_episode(self._environment, recipe, number, start=start)

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()


class Collector:
    """Plays attempts in a worker process and stages those that succeed."""

    def __init__(self, staging: Path, recipe: Recipe):
        self._staging = staging
        self._recipe = recipe
        self._rehearser = Rehearser(recipe)

    def __call__(self, request: tuple[str, int]) -> tuple[int, bool]:
        """Plays and stages attempt (task, number); returns its length and success."""
        task, number = request
        steps, metadata = self._rehearser.play(task, number)
        success = metadata["success"]
        payload = b""
        if success:
            features = step_features(self._recipe)
            payload = encode_episode(features, METADATA_FEATURES, steps, metadata)
        num_steps = len(steps["action"])
        kind = "success" if success else "failed"
        place = self._staging / task
        partial = place / f"{number:06d}.partial"
        partial.write_bytes(payload)
        os.replace(partial, place / f"{number:06d}.{num_steps}.{kind}")
        return num_steps, success

    def close(self) -> None:
        self._rehearser.close()


def _play(
    plans: dict[str, TaskPlan],
    staging: Path,
    recipe: Recipe,
    num_workers: int,
    progress: bool,
) -> None:
    """Plays attempts until every plan is finished."""
    if all(plan.finished for plan in plans.values()):
        return
    ensure_gl()
    playing: dict[int, tuple[str, int]] = {}
    last_task: dict[int, str] = {}
    total = sum(plan.episodes for plan in plans.values())
    with (
        tqdm(total=total, unit="episode", disable=not progress) as bar,
        Workers(Collector, [(staging, recipe)] * num_workers) as workers,
    ):
        while True:
            bar.update(sum(len(plan.kept) for plan in plans.values()) - bar.n)
            for worker in workers.idle:
                choice = _choose(plans, last_task.get(worker), playing)
                if choice is not None:
                    playing[worker] = choice
                    last_task[worker] = choice[0]
                    task, number = choice
                    workers.submit(worker, choice, f"task '{task}', attempt {number}")
            if not playing:
                return
            for worker, (num_steps, success) in workers.wait():
                task, number = playing.pop(worker)
                plans[task].finish(number, num_steps, success)


def _choose(
    plans: dict[str, TaskPlan],
    last_task: str | None,
    playing: dict[int, tuple[str, int]],
) -> tuple[str, int] | None:
    """The next attempt for a worker: of its own task if possible, then of any."""
    busy = [task for task, _ in playing.values()]
    order = sorted(plans, key=lambda task: (task != last_task, busy.count(task)))
    for task in order:
        number = plans[task].next_attempt()
        if number is not None:
            return task, number
    return None


def _assemble(
    out: Path,
    name: str,
    plans: dict[str, TaskPlan],
    val_fraction: float,
    recipe: Recipe,
) -> None:
    """Writes the kept episodes into shards; tasks take turns."""
    features = step_features(recipe)
    with RLDSWriter(
        out,
        name,
        features,
        METADATA_FEATURES,
        version=VERSION,
        episodes_per_shard=EPISODES_PER_SHARD,
        description=f"Scripted experts of {recipe.environment}: {', '.join(plans)}.",
    ) as writer:
        kept = {task: plan.kept for task, plan in plans.items()}
        episodes = len(next(iter(kept.values())))
        num_val = round(episodes * val_fraction)
        if val_fraction > 0 and episodes > 1:
            num_val = max(1, num_val)
        for turn in range(episodes):
            split = "train" if turn < episodes - num_val else "val"
            for task, plan in plans.items():
                writer.write_encoded(split, plan.path(kept[task][turn]).read_bytes())


def _fingerprint(recipe: Recipe) -> str:
    # Attempts of another version may lack fields; they are not to be continued.
    recorded = sorted(step_features(recipe)["observation"])
    content = json.dumps([dataclasses.asdict(recipe), recorded], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
