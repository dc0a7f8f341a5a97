"""The report of a run as one HTML file: curves, success rates, videos, next steps."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #1c2733; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .35rem .9rem; text-align: left;
       border-bottom: 1px solid #d8dee6; } td.number { text-align: right; }
.bar { background: #e6ebf1; width: 14rem; height: .8rem; position: relative; }
.bar i { background: #2f7d6d; height: 100%; display: block; }
.bar b { position: absolute; top: -.15rem; height: 1.1rem; border: solid #1c2733;
         border-width: 0 2px; box-sizing: border-box; }
.videos { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } video { border-radius: 6px; width: 256px; }
figcaption { max-width: 256px; font-size: .9rem; } img { max-width: 100%; }
pre { background: #f3f5f8; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
"""


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
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(fact)}</p>" for fact in facts),
        "<h2>Success in closed loop</h2>",
        _success_table(results),
        "<h2>Episodes</h2>",
        _videos(results, evaluation / "videos"),
        "<h2>Learning curves</h2>",
        f'<img alt="Loss over steps" src="{_data_uri(draw_curves(metrics), "png")}">',
        "<h2>Next</h2>",
        *(
            f"<p>{html.escape(what)}</p><pre>{html.escape(command)}</pre>"
            for what, command in next_steps.items()
        ),
        "<h2>Versions</h2>",
        _versions(results["versions"]),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(sections)}</body></html>"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


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
    lines = ["<tr><th>task<th>success<th>episodes<th>95 % Wilson interval<th></tr>"]
    for task, row in rows.items():
        low, high = row["interval"]
        bar = (
            f'<div class="bar"><i style="width:{row["success_rate"]:.1%}"></i>'
            f'<b style="left:{low:.1%};width:{high - low:.1%}"></b></div>'
        )
        lines.append(
            f"<tr><td>{html.escape(task)}"
            f'<td class="number">{row["success_rate"]:.1%}'
            f'<td class="number">{row["successes"]}/{row["episodes"]}'
            f"<td>{low:.1%} to {high:.1%}<td>{bar}</tr>"
        )
    return f"<table>{''.join(lines)}</table>"


def _videos(results: Mapping, folder: Path) -> str:
    """Every video with its task, its instruction and how the episode ended."""
    figures = []
    for episode in results["episodes"]:
        path = folder / f"{episode['task']}-{episode['number']:03d}.mp4"
        if not path.exists():
            continue
        end = "solved" if episode["success"] else "failed"
        caption = (
            f"<b>{html.escape(episode['task'])}</b>: "
            f"“{html.escape(episode['instruction'])}”, {end} after "
            f"{episode['steps']} steps"
        )
        source = _data_uri(path.read_bytes(), "mp4")
        figures.append(
            f'<figure><video src="{source}" controls autoplay loop muted playsinline>'
            f"</video><figcaption>{caption}</figcaption></figure>"
        )
    if not figures:
        return "<p>No episode was filmed.</p>"
    return f'<div class="videos">{"".join(figures)}</div>'


def _versions(versions: Mapping[str, str]) -> str:
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"<p>{html.escape(text)}</p>"


def _data_uri(content: bytes, kind: str) -> str:
    mime = {"png": "image/png", "mp4": "video/mp4"}[kind]
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
