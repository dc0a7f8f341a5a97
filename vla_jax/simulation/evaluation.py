"""Success rates with their uncertainty: resumable evaluation, and paired comparison.

Every finished episode is a line of `episodes.jsonl` at once, so an interrupted
evaluation continues. `evaluation.json` follows when all of them are there.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vla_jax.simulation.chains import chain_lengths, format_chains, summarize_chains
from vla_jax.simulation.environment import Environment, episode_seed
from vla_jax.simulation.intervals import mcnemar, wilson_interval, z_score
from vla_jax.simulation.point_metrics import count_stages
from vla_jax.simulation.rollout import Agent, Episode, Result, run_episodes
from vla_jax.simulation.settings import require_same_settings

_PACKAGES = (
    "jax",
    "numpy",
    "mujoco",
    "metaworld",
    "gym-aloha",
    "hf-libero",
    "robosuite",
    "vla_jax",
)


def evaluate(
    agent: Agent,
    out: str | os.PathLike,
    tasks: Sequence[str],
    make: Callable[[str], Environment],
    *,
    episodes: int,
    seed: int,
    settings: Mapping,
    num_workers: int = 2,
    num_videos: int = 0,
    whole: bool = False,
    confidence: float = 0.95,
    stages: Mapping[str, Sequence[str]] | None = None,
    fixed_starts: int = 0,
    progress: bool = True,
) -> dict:
    """Plays what is missing and writes `evaluation.json`.

    Args:
        agent: the policy.
        out: folder of the results; an earlier, interrupted evaluation there goes on.
        tasks: names of the tasks.
        make: makes the environment of a task; importable in worker processes.
        episodes: episodes of each task; their seeds follow from `seed`.
        seed: of the evaluation.
        settings: JSON values that the results depend on, such as the checkpoint; with
            other settings the folder is refused.
        num_workers: environments at a time; no influence on the results.
        num_videos: episodes of each task, the first ones, that are filmed and whose
            attention points are kept in `points/`.
        whole: play on to the horizon after success, and see whether it lasts.
        confidence: of the intervals.
        stages: of each task that has some, the names of its stages.
        fixed_starts: how many fixed initial states the tasks have; episode n begins in
            the n-th as long as there are some.
        progress: show a progress bar.

    Returns:
        The content of `evaluation.json`.

    Raises:
        ValueError: no episodes, or `out` belongs to other settings.
        WorkerError: a worker failed or died; finished episodes are kept.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected at least 1.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out / "settings.json", {**settings, "seed": seed})
    wanted = [
        Episode(
            task,
            number,
            episode_seed("evaluate", seed, task, number),
            number if number < fixed_starts else None,
        )
        for task in tasks
        for number in range(episodes)
    ]
    log = out / "episodes.jsonl"
    results = {(r.task, r.number): r for r in _read_log(log)}
    missing = [e for e in wanted if (e.task, e.number) not in results]

    def video_path(episode: Episode) -> Path | None:
        if episode.number >= num_videos:
            return None
        return out / "videos" / f"{episode.task}-{episode.number:03d}.mp4"

    def track_path(episode: Episode) -> Path | None:
        if episode.number >= num_videos:
            return None
        return out / "points" / f"{episode.task}-{episode.number:03d}.npz"

    with log.open("a") as file:

        def on_result(result: Result) -> None:
            results[result.task, result.number] = result
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")
            file.flush()

        run_episodes(
            agent,
            missing,
            make,
            num_workers=num_workers,
            on_result=on_result,
            video_path=video_path,
            track_path=track_path,
            whole=whole,
            progress=progress,
        )
    report = summarize([results[e.task, e.number] for e in wanted], confidence, stages)
    report["settings"] = {**settings, "seed": seed}
    _write_json(out / "evaluation.json", report)
    return report


def summarize(
    results: Sequence[Result],
    confidence: float = 0.95,
    stages: Mapping[str, Sequence[str]] | None = None,
) -> dict:
    """Counts, rates, intervals, all episodes and the versions in use.

    Tasks with stages also have `stages`, name to the number of episodes that `reached`
    it at any time and its `interval`, and `held`, how many were solved in the last
    state; those with attention points have `metrics`, means over the episodes that tell
    them. Where episodes are parts of chains, `chains` is their `summarize_chains`.
    """
    z = z_score(confidence)
    tasks: dict[str, dict] = {}
    for task in dict.fromkeys(result.task for result in results):
        mine = [result for result in results if result.task == task]
        wins = sum(result.success for result in mine)
        row = {"episodes": len(mine), "successes": wins}
        row["success_rate"] = wins / len(mine)
        row["interval"] = list(wilson_interval(wins, len(mine), z))
        names = (stages or {}).get(task, ())
        if names:
            counts = count_stages([result.stage for result in mine], len(names))
            row["stages"] = {
                name: {
                    "reached": count,
                    "interval": list(wilson_interval(count, len(mine), z)),
                }
                for name, count in zip(names, counts, strict=True)
            }
            row["held"] = sum(result.held for result in mine)
        metrics = {key for result in mine for key in result.metrics}
        if metrics:
            row["metrics"] = {}
            for key in sorted(metrics):
                told = [r.metrics[key] for r in mine if key in r.metrics]
                row["metrics"][key] = sum(told) / len(told)
        tasks[task] = row
    wins = sum(row["successes"] for row in tasks.values())
    lengths = list(chain_lengths(results).values())
    chains = {"chains": summarize_chains(lengths, z=z)} if lengths else {}
    return {
        "mean_success": sum(r["success_rate"] for r in tasks.values()) / len(tasks),
        "interval": list(wilson_interval(wins, len(results), z)),
        "confidence": confidence,
        "tasks": tasks,
        **chains,
        "episodes": [dataclasses.asdict(result) for result in results],
        "versions": versions(),
    }


def compare(first: Mapping, second: Mapping) -> dict:
    """Pairs two evaluations episode by episode; McNemar's test per task and over all.

    Raises:
        ValueError: the evaluations do not hold the same episodes.
    """
    outcomes = [
        {(e["task"], e["number"], e["seed"]): e["success"] for e in report["episodes"]}
        for report in (first, second)
    ]
    if outcomes[0].keys() != outcomes[1].keys():
        raise ValueError(
            "The two evaluations hold different episodes; run both with the same "
            "tasks, number of episodes and seed."
        )
    _require_same_starts(first, second)
    rows: dict[str, dict] = {}
    for key, a in outcomes[0].items():
        b = outcomes[1][key]
        kind = (
            ("both" if b else "only_first") if a else "only_second" if b else "neither"
        )
        for name in (key[0], "all tasks"):
            row = rows.setdefault(
                name, dict.fromkeys(("both", "only_first", "only_second", "neither"), 0)
            )
            row[kind] += 1
    for row in rows.values():
        row["p"] = mcnemar(row["only_first"], row["only_second"])
    rows["all tasks"] = rows.pop("all tasks")
    return rows


def format_table(report: Mapping) -> str:
    """The success rates as a text table."""
    width = max(len("all tasks"), *(len(task) for task in report["tasks"]))
    # Reports of earlier versions have 95 % intervals and do not say so.
    confidence = f"{100 * report.get('confidence', 0.95):g} %"
    rows = [f"{'task':{width}}  success  episodes  {confidence} interval"]
    entries = dict(report["tasks"])
    if len(entries) > 1:
        entries["all tasks"] = {
            "success_rate": report["mean_success"],
            "successes": sum(row["successes"] for row in report["tasks"].values()),
            "episodes": len(report["episodes"]),
            "interval": report["interval"],
        }
    for name, row in entries.items():
        low, high = row["interval"]
        count = f"{row['successes']}/{row['episodes']}"
        rows.append(
            f"{name:{width}}  {row['success_rate']:7.1%}  {count:>8}  "
            f"{low:.1%} to {high:.1%}"
        )
    for name, row in report["tasks"].items():
        if "stages" in row:
            reached = [f"{k} {v['reached']}" for k, v in row["stages"].items()]
            held = f"solved in the last state {row['held']}"
            rows.append(f"{name}: {', '.join(reached)}, {held}")
        if "metrics" in row:
            told = [f"{key} {value:.3g}" for key, value in row["metrics"].items()]
            rows.append(f"{name}: {', '.join(told)}")
    if "chains" in report:
        rows.append(format_chains(report["chains"]))
    return "\n".join(rows)


def format_comparison(rows: Mapping, names: Sequence[str]) -> str:
    """The paired comparison as a text table; `names` of the first and the second."""
    width = max(len(name) for name in rows)
    lines = [
        f"first: {names[0]}\nsecond: {names[1]}",
        f"{'task':{width}}  both  only first  only second  neither  McNemar p",
    ]
    for name, row in rows.items():
        lines.append(
            f"{name:{width}}  {row['both']:4d}  {row['only_first']:10d}  "
            f"{row['only_second']:11d}  {row['neither']:7d}  {row['p']:9.3g}"
        )
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Versions of what the results depend on; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    found["renderer"] = os.environ.get("MUJOCO_GL", "default")
    return found


def write_comparison(path: str | os.PathLike, rows: Mapping, names: Sequence[str]):
    """Writes a paired comparison as JSON."""
    _write_json(
        Path(path), {"first": names[0], "second": names[1], "tasks": dict(rows)}
    )


def _require_same_starts(first: Mapping, second: Mapping) -> None:
    """Pairs must begin alike; another version of a simulator may draw others."""
    starts = [
        {(e["task"], e["number"]): e.get("start") for e in report["episodes"]}
        for report in (first, second)
    ]
    for key, start in starts[0].items():
        if start != starts[1][key]:
            raise ValueError(
                f"Episode {key[1]} of task '{key[0]}' began with the objects at {start}"
                f" in the first evaluation and at {starts[1][key]} in the second; run "
                "both with the same simulator and variant."
            )


def _claim(path: Path, settings: Mapping) -> None:
    """Notes what the results in a folder depend on; refuses a folder of others."""
    # Through JSON once, so that tuples and lists compare equal.
    settings = json.loads(json.dumps(settings))
    if path.exists():
        require_same_settings(path.parent, json.loads(path.read_text()), settings)
    else:
        _write_json(path, settings)


def _read_log(path: Path) -> list[Result]:
    """Finished episodes; a line that a killed run left unfinished is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    return [Result(**json.loads(line)) for line in content[:whole].splitlines()]


def _write_json(path: Path, content: Mapping) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
