"""Episodes that another program has played, counted like those played here.

So a policy that is evaluated in CALVIN's own simulator, through the server of
`vla_jax.serving` for example, gets the same report, with the metric of `chains.py`.
"""

import json
from pathlib import Path

from vla_jax.simulation.evaluation import summarize
from vla_jax.simulation.rollout import Result


def read_recorded(path: str | Path) -> list[Result]:
    """Reads recorded episodes: one JSON object with the fields of `Result` per line.

    Needed are `task`, `success` and, for an instruction of a chain, `chain`: the number
    of the chain and the place in it from 0.

    Raises:
        ValueError: no such file, or a line that is no result, with its number.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {path} of recorded episodes.")
    results = []
    for number, line in enumerate(path.read_text().splitlines()):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            blank = dict(number=number, seed=0, instruction="", steps=0)
            result = Result(**{**blank, **fields})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Line {number + 1} of {path} is no recorded episode: {error}."
            ) from error
        if not isinstance(result.success, bool):
            raise ValueError(
                f"Line {number + 1} of {path} has success={result.success!r}; expected "
                "true or false."
            )
        results.append(result)
    if not results:
        raise ValueError(f"{path} holds no episodes.")
    return results


def report_recorded(
    path: str | Path, out: str | Path, confidence: float = 0.95
) -> dict:
    """Writes `evaluation.json` of episodes that another program has played.

    Args:
        path: as `read_recorded` wants it.
        out: folder of the report.
        confidence: of the intervals.

    Returns:
        The content of `evaluation.json`.

    Raises:
        ValueError: a file that cannot be read, or chains that are not whole.
    """
    report = summarize(read_recorded(path), confidence)
    report["settings"] = {"recorded": str(path)}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
