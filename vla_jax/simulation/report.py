"""The report of a run as one HTML file: curves, success rates, videos, next steps."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vla_jax.page import (
    commands,
    data_uri,
    escape,
    image,
    paragraphs,
    table,
    write_page,
)


def write_report(
    path: str | Path,
    *,
    title: str,
    metrics: str | Path,
    evaluation: str | Path,
    facts: Sequence[str] = (),
    next_steps: Mapping[str, str],
) -> Path:
    """Writes one self-contained page; it can be mailed and opened anywhere.

    Args:
        path: the HTML file.
        title: heading of the page.
        metrics: the run's `metrics.jsonl`.
        evaluation: folder with `evaluation.json` and `videos/`.
        facts: sentences below the heading.
        next_steps: what one may want to do -> the command for it.

    Returns:
        The path of the page.
    """
    evaluation = Path(evaluation)
    results = json.loads((evaluation / "evaluation.json").read_text())
    return write_page(
        path,
        title,
        [
            paragraphs(facts),
            "<h2>Success in closed loop</h2>",
            _success_table(results),
            "<h2>Episodes</h2>",
            _videos(results, evaluation / "videos"),
            "<h2>Learning curves</h2>",
            image(draw_curves(metrics), "png", "Loss over steps"),
            "<h2>Next</h2>",
            commands(next_steps),
            "<h2>Versions</h2>",
            _versions(results["versions"]),
        ],
    )


def draw_curves(metrics: str | Path) -> bytes:
    """Training and validation loss over steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label in (("loss", "training"), ("validation/loss", "held-out episodes")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _success_table(results: Mapping) -> str:
    rows = dict(results["tasks"])
    if len(rows) > 1:
        rows["all tasks"] = {
            "successes": sum(row["successes"] for row in rows.values()),
            "episodes": sum(row["episodes"] for row in rows.values()),
            "success_rate": results["mean_success"],
            "interval": results["interval"],
        }
    cells = []
    for task, row in rows.items():
        low, high = row["interval"]
        bar = (
            f'<div class="bar"><i style="width:{row["success_rate"]:.1%}"></i>'
            f'<b style="left:{low:.1%};width:{high - low:.1%}"></b></div>'
        )
        cells.append(
            (
                escape(task),
                f"{row['success_rate']:.1%}",
                f"{row['successes']}/{row['episodes']}",
                f"{low:.1%} to {high:.1%}",
                bar,
            )
        )
    head = ("task", "success", "episodes", "95 % Wilson interval", "")
    return table(head, cells)


def _videos(results: Mapping, folder: Path) -> str:
    """Every video with its task, its instruction and how the episode ended."""
    figures = []
    for episode in results["episodes"]:
        path = folder / f"{episode['task']}-{episode['number']:03d}.mp4"
        if not path.exists():
            continue
        end = "solved" if episode["success"] else "failed"
        caption = (
            f"<b>{escape(episode['task'])}</b>: "
            f"“{escape(episode['instruction'])}”, {end} after "
            f"{episode['steps']} steps"
        )
        source = data_uri(path.read_bytes(), "mp4")
        figures.append(
            f'<figure><video src="{source}" controls autoplay loop muted playsinline>'
            f"</video><figcaption>{caption}</figcaption></figure>"
        )
    if not figures:
        return "<p>No episode was filmed.</p>"
    return f'<div class="grid">{"".join(figures)}</div>'


def _versions(versions: Mapping[str, str]) -> str:
    return paragraphs(
        [", ".join(f"{name} {version}" for name, version in versions.items())]
    )
