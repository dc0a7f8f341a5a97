"""Statistics in the files of other libraries, read and written.

    octo, openvla   dataset_statistics.json   mean std min max p01 p99 (or q01 q99)
    openpi          norm_stats.json           mean std q01 q99
    LeRobot         meta/stats.json           min max mean std count q01 ... q99

What a format does not keep is NaN in the `Statistics` (a count 0), and a normalization
that needs it is refused.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla_jax.data.statistics import Statistics, tiny_span
from vla_jax.names import did_you_mean

FORMATS = ("lerobot", "octo", "openpi")
FILE_NAMES = {
    "lerobot": "stats.json",
    "octo": "dataset_statistics.json",
    "openpi": "norm_stats.json",
}
# Ours to theirs; where there are two, the first is written and either is read.
_KEYS = {
    "lerobot": {"action": "action", "proprio": "observation.state"},
    "octo": {"action": "action", "proprio": "proprio"},
    "openpi": {"action": "actions", "proprio": "state"},
}
_FIELDS = {
    "lerobot": {k: (k,) for k in ("mean", "std", "min", "max", "q01", "q99")},
    "octo": {
        **{k: (k,) for k in ("mean", "std", "min", "max")},
        "q01": ("p01", "q01"),
        "q99": ("p99", "q99"),
    },
    "openpi": {k: (k,) for k in ("mean", "std", "q01", "q99")},
}
_REQUIRED = {
    "lerobot": ("mean", "std", "min", "max"),
    "octo": ("mean", "std", "min", "max"),
    "openpi": ("mean", "std"),
}


def read_statistics(
    path: str | os.PathLike, form: str | None = None, *, dataset: str | None = None
) -> dict[str, Statistics]:
    """Reads "action" and, where the file has it, "proprio".

    Args:
        path: the file.
        form: one of `FORMATS`; told from the content when None.
        dataset: which one, in an octo file of several data sets.

    Raises:
        ValueError: for a file that is no such statistics, naming what lacks.
    """
    path = Path(path).expanduser()
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    try:
        return parse_statistics(content, form or detect_format(content), dataset)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_statistics(
    path: str | os.PathLike,
    statistics: Mapping[str, Statistics],
    form: str,
    *,
    num_trajectories: int | None = None,
) -> Path:
    """Writes "action" and "proprio" as another library reads them; returns the file.

    Args:
        path: the file, or a folder for a file of the library's usual name.
        statistics: for example `Index.statistics`.
        form: one of `FORMATS`.
        num_trajectories: number of training episodes; octo wants it.

    Raises:
        ValueError: for an unknown format, or a field it needs that is not known.
    """
    content = format_statistics(statistics, form, num_trajectories=num_trajectories)
    path = Path(path).expanduser()
    if path.suffix != ".json":
        path = path / FILE_NAMES[form]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
    return path


def detect_format(content: Mapping) -> str:
    """Which of `FORMATS` the content of a file is.

    Raises:
        ValueError: when it is none of them.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"Expected a JSON object, got a {type(content).__name__}.")
    if "norm_stats" in content:
        return "openpi"
    if any(key.startswith("observation.") for key in content):
        return "lerobot"
    if _is_octo(content) or _octo_datasets(content):
        return "octo"
    if "action" in content:
        return "lerobot"
    raise ValueError(
        f"Its keys {sorted(content)[:10]} are those of no known format; expected "
        "'norm_stats' (openpi), or 'action' (LeRobot and octo)."
    )


def parse_statistics(
    content: Mapping, form: str, dataset: str | None = None
) -> dict[str, Statistics]:
    """Statistics from the content of a file; see `read_statistics`."""
    _check_format(form)
    counts = {}
    if form == "octo":
        content = _choose(content, dataset)
        count = content.get("num_transitions", 0)
        counts = {"action": count, "proprio": count}
    elif dataset is not None:
        raise ValueError(f"{form} keeps one data set per file; leave out {dataset!r}.")
    if form == "openpi":
        content = content.get("norm_stats", {})
    statistics = {}
    for key, theirs in _KEYS[form].items():
        if content.get(theirs):
            fields = content[theirs]
            count = counts.get(key, np.ravel(fields.get("count", 0))[0])
            statistics[key] = _parse(fields, theirs, form, int(count))
    if "action" not in statistics:
        raise ValueError(
            f"It has no {_KEYS[form]['action']!r}, which {form} keeps the actions "
            f"in; it has {sorted(content)[:20]}."
        )
    return statistics


def format_statistics(
    statistics: Mapping[str, Statistics],
    form: str,
    *,
    num_trajectories: int | None = None,
) -> dict:
    """The content of a file; see `write_statistics`."""
    _check_format(form)
    content = {}
    for key, stats in statistics.items():
        if key not in _KEYS[form]:
            raise ValueError(
                f"Unknown statistics {key!r}; {did_you_mean(key, _KEYS[form])}"
            )
        fields = {}
        for ours, theirs in _FIELDS[form].items():
            values = getattr(stats, ours)
            if not np.isnan(values).any():
                fields[theirs[0]] = values.tolist()
            elif ours in _REQUIRED[form]:
                raise ValueError(
                    f"{form} needs {ours!r}, which the statistics of {key!r} lack: "
                    "compute them from the data with launch/index.py."
                )
        if form == "lerobot":
            fields["count"] = [stats.count]
        content[_KEYS[form][key]] = fields
    if form == "openpi":
        return {"norm_stats": content}
    if form == "octo":
        if num_trajectories is None:
            raise ValueError("octo needs num_trajectories, the number of episodes.")
        content["num_transitions"] = statistics["action"].count
        content["num_trajectories"] = num_trajectories
    return content


def _parse(fields: Mapping, name: str, form: str, count: int) -> Statistics:
    arrays = {}
    for ours, theirs in _FIELDS[form].items():
        present = [key for key in theirs if fields.get(key) is not None]
        if present:
            arrays[ours] = np.array(fields[present[0]], np.float64).reshape(-1)
    missing = [key for key in _REQUIRED[form] if key not in arrays]
    if missing:
        raise ValueError(
            f"{name!r} lacks {missing}, which {form} always has; it has "
            f"{sorted(fields)}."
        )
    widths = {key: len(values) for key, values in arrays.items()}
    if len(set(widths.values())) != 1:
        raise ValueError(f"The fields of {name!r} differ in width: {widths}.")
    mean = arrays["mean"]
    unknown = np.full(len(mean), np.nan)
    known = {
        key: arrays.get(key, unknown)
        for key in ("mean", "std", "min", "max", "q01", "q99")
    }
    span = known["max"] - known["min"]
    return Statistics(
        count=count,
        tiny=np.where(np.isnan(span), 2 * known["std"], span) <= tiny_span(mean),
        quantile_error=float("nan"),
        **known,
    )


def _is_octo(content: Mapping) -> bool:
    action = content.get("action")
    return "num_transitions" in content or (
        isinstance(action, Mapping) and "count" not in action and "mean" in action
    )


def _octo_datasets(content: Mapping) -> list[str]:
    """Names of the data sets in a file of several."""
    return [k for k, v in content.items() if isinstance(v, Mapping) and _is_octo(v)]


def _choose(content: Mapping, dataset: str | None) -> Mapping:
    """One data set's statistics out of an octo file."""
    names = _octo_datasets(content)
    if not names:
        if dataset is None:
            return content
        raise ValueError(f"It holds one data set without a name, not {dataset!r}.")
    if dataset is None and len(names) == 1:
        return content[names[0]]
    if dataset is None:
        raise ValueError(f"It holds several data sets; name one of {sorted(names)}.")
    if dataset not in names:
        raise ValueError(
            f"Unknown data set {dataset!r}; {did_you_mean(dataset, names)}"
        )
    return content[dataset]


def _check_format(form: str):
    if form not in FORMATS:
        raise ValueError(f"Unknown format {form!r}; {did_you_mean(form, FORMATS)}")
