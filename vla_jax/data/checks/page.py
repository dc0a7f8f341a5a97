"""The report of a validation as one HTML page, with pictures and histograms."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vla_jax.data.checks.contact_sheet import choose_episodes, draw_strip
from vla_jax.data.checks.finding import Report, Sample
from vla_jax.data.checks.histogram import count_lengths, draw_histogram, histograms
from vla_jax.data.checks.language import count_instructions
from vla_jax.data.checks.projection import can_project
from vla_jax.data.checks.unindexed import describe_features
from vla_jax.data.index import Index
from vla_jax.data.rlds import open_rlds
from vla_jax.page import escape, image, paragraphs, table, write_page

_SHEET = 4  # episodes on the contact sheet
_SUSPECTS = 8  # episodes shown because of a finding, two of each at most
_INSTRUCTIONS = 20


def write_validation_page(
    path: str | os.PathLike, report: Report, sample: Sample | None
) -> Path:
    """Writes the page; without a sample (no index could be made) only the findings."""
    sections = [
        paragraphs([f"{report.data_path}", f"Looked at: {report.scope}."]),
        f"<p><b>{escape(report.summary)}</b></p>",
        "<h2>Checks</h2>",
        _findings(report),
    ]
    if sample is not None:
        index = sample.index
        sections += [
            *_suspects(report, sample),
            "<h2>Contact sheet</h2>",
            *_contact_sheet(sample),
            "<h2>Actions</h2>",
            *_histograms("action", index, index.spec.action),
            "<h2>Proprio</h2>",
            *_histograms("proprio", index, [""] * index.proprio.shape[1]),
            "<h2>Episode lengths</h2>",
            _figure(draw_histogram(count_lengths(index.num_episode_steps)), "steps"),
            "<h2>Instructions</h2>",
            *_instructions(index),
            "<h2>Features on disk</h2>",
            f"<pre>{escape(describe_features(open_rlds(index.data_path)))}</pre>",
        ]
    sections += ["<h2>Contents</h2>", f"<pre>{escape(report.table)}</pre>"]
    return write_page(path, f"Data set {report.name}", sections)


def _findings(report: Report) -> str:
    rows = [
        (
            f'<span class="level {finding.level}">{finding.level}</span>',
            f'<span class="name">{escape(finding.check)}</span>',
            f"{escape(finding.sentence)} "
            f'<span class="remedy">{escape(finding.remedy)}</span>',
        )
        for finding in report.findings
    ]
    return table(("", "check", "what was found, and what to do"), rows)


def _suspects(report: Report, sample: Sample) -> Iterator[str]:
    """Strips of episodes that findings name, each once."""
    shown: set[int] = set()
    strips = []
    for finding in report.findings:
        if finding.level not in ("error", "warning"):
            continue
        for episode in finding.episodes[:2]:
            if episode not in shown and len(shown) < _SUSPECTS:
                shown.add(episode)
                strips.append(_strip(sample, episode, f"{finding.check}: "))
    if strips:
        yield "<h2>Episodes to look at</h2>"
        yield from strips


def _contact_sheet(sample: Sample) -> Iterator[str]:
    index = sample.index
    cameras = [camera for camera in index.cameras if can_project(index, camera)]
    if cameras:
        yield paragraphs(
            [
                "The ring is the end effector, projected by the camera matrices of "
                f"{' and '.join(cameras)}; the line is its way so far."
            ]
        )
    else:
        yield paragraphs(
            [
                "The end effector is not drawn: there is no camera with intrinsics and "
                "extrinsics, or there are no poses."
            ]
        )
    for episode in choose_episodes(sample, _SHEET):
        yield _strip(sample, episode, "")


def _strip(sample: Sample, episode: int, reason: str) -> str:
    index = sample.index
    first = int(index.first_step[episode])
    split = index.split_names[int(index.split[episode])]
    texts = index.instructions(first)
    told = f"“{texts[0]}”" if texts else "no instruction"
    caption = (
        f"{reason}episode {episode} ({split}), {told}, "
        f"{int(index.num_episode_steps[episode])} steps"
    )
    picture = image(draw_strip(sample, episode), "jpeg", f"Episode {episode}")
    return (
        f'<figure class="strip">{picture}<figcaption>{escape(caption)}</figcaption>'
        "</figure>"
    )


def _histograms(key: str, index: Index, kinds: Sequence[str]) -> Iterator[str]:
    if not kinds:
        yield paragraphs([f"There is no {key}."])
        return
    stats = index.statistics[key]
    yield paragraphs(
        [
            f"Over {stats.count:,} training steps; quantiles are exact to "
            f"{stats.quantile_error:.2%} of the ranks."
        ]
    )
    yield '<div class="grid">'
    for d, histogram in enumerate(histograms(index.streaming[key])):
        caption = f"{d} {kinds[d]} · {stats.mean[d]:.3g} ± {stats.std[d]:.3g}"
        beyond = histogram["below"] + histogram["above"]
        if beyond > 0:
            caption += (
                f" · {beyond:.2%} beyond, to {stats.min[d]:.3g} and {stats.max[d]:.3g}"
            )
        yield _figure(draw_histogram(histogram), caption)
    yield "</div>"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _instructions(index: Index) -> Iterator[str]:
    counts = count_instructions(index).most_common()
    if not counts:
        yield paragraphs(["There are none."])
        return
    yield paragraphs([f"{len(index.languages):,} different ones."])
    yield table(
        ("episodes", "instruction"),
        [(f"{count:,}", escape(text)) for text, count in counts[:_INSTRUCTIONS]],
    )
    if len(counts) > _INSTRUCTIONS:
        yield paragraphs([f"and {len(counts) - _INSTRUCTIONS:,} more."])
