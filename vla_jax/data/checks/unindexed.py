"""Why a data set cannot be indexed: all reasons at once, not the first alone."""

from collections.abc import Iterator

from tqdm import tqdm

from vla_jax.data.checks.finding import Finding, Report, ordered
from vla_jax.data.rlds import RLDSFolder, episode_from_record
from vla_jax.data.shard import open_view
from vla_jax.data.spec import DatasetSpec
from vla_jax.data.standardize import standardize_episode
from vla_jax.data.tfrecord import CorruptRecord, iterate_records


def survey(
    folder: RLDSFolder,
    spec: DatasetSpec,
    reason: Exception,
    *,
    num_episodes: int = 100,
    progress: bool = True,
) -> Report:
    """Tries episodes of a data set one by one.

    Args:
        folder, spec: of the data set.
        reason: why it could not be indexed.
        num_episodes: how many to try, spread over the shards; all for 0.
        progress: show a progress bar.
    """
    shards = [shard.path for of_split in folder.splits.values() for shard in of_split]
    quota = -(-num_episodes // len(shards)) if num_episodes and shards else None
    tried, failed = 0, {}
    for path in tqdm(shards, unit="shard", desc="survey", disable=not progress):
        for problem in _try_shard(path, folder, spec, quota):
            tried += 1
            if problem:
                failed.setdefault(problem.partition(" at ")[0], []).append(problem)
    findings = [
        Finding(
            "error",
            "index",
            f"The data set cannot be indexed: {reason}",
            "The other checks need the index.",
        )
    ]
    findings += [
        Finding(
            "error",
            "episodes",
            f"{len(problems)} of {tried} sampled episodes fail alike: {problems[0]}.",
            "Correct the data or the standardize function.",
        )
        for problems in failed.values()
    ]
    which = "the first of every shard" if quota else "all there are"
    scope = f"{tried:,} episodes, {which}"
    return Report(
        spec.name, folder.path, scope, describe_features(folder), ordered(findings)
    )


def _try_shard(
    path: str, folder: RLDSFolder, spec: DatasetSpec, quota: int | None
) -> Iterator[str]:
    """What is wrong with each of the first episodes of a shard; "" for nothing."""
    corrupt: list[CorruptRecord] = []
    for number, (_, payload) in enumerate(
        iterate_records(open_view(path), path, corrupt.append)
    ):
        if number == quota:
            break
        try:
            standardize_episode(spec, episode_from_record(payload, folder.features))
        except Exception as error:  # whatever a user's function may raise
            yield _explain(error)
        else:
            yield ""
    for record in corrupt:
        yield f"{record.reason} (corrupt record in {path})"


def _explain(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def describe_features(folder: RLDSFolder) -> str:
    """The raw features of a data set, one per line."""
    lines = [f"{folder.name} {folder.version}: {folder.path}"]
    width = max((len(key) for key in folder.features), default=0)
    for key, feature in sorted(folder.features.items()):
        shape = "x".join(map(str, feature.shape)) or "scalar"
        lines.append(f"  {key:{width}}  {feature.kind} {feature.dtype} {shape}")
    return "\n".join(lines)
