"""Strips of an episode, with the end effector where there is a camera model."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_jax.data.checks.finding import Sample
from vla_jax.data.checks.projection import can_project, project
from vla_jax.data.image import decode
from vla_jax.data.index import Index

_TILE = 150  # pixels, height of a picture
_STRIP, _GAP = 18, 4  # pixels, height of the writing and space between pictures
_NOTE = 128  # pixels, least width of the writing
_PAPER, _INK, _MARK = (255, 255, 255), (28, 39, 51), (255, 122, 0)


def choose_episodes(sample: Sample, count: int) -> list[int]:
    """Some sampled episodes, of different instructions as far as there are."""
    index, chosen, told = sample.index, [], set()
    order = np.random.default_rng(1).permutation(sample.episodes).tolist()
    for episode in order:
        instruction = int(index.language[index.first_step[episode], 0])
        if instruction not in told:
            told.add(instruction)
            chosen.append(episode)
        if len(chosen) == count:
            return sorted(chosen)
    rest = [episode for episode in order if episode not in set(chosen)]
    return sorted(chosen + rest[: count - len(chosen)])


def draw_strip(sample: Sample, episode: int, moments: int = 6) -> bytes:
    """Pictures of an episode at evenly spaced moments, one row per camera, as JPEG.

    Below each stands its step and what the gripper is told; a ring marks the end
    effector, a line its way so far, in cameras with a camera model. What cannot be
    decoded is gray.
    """
    index = sample.index
    steps = sample.steps(episode)
    chosen = np.unique(np.linspace(steps.start, steps.stop - 1, moments).astype(int))
    rows = [_row(index, camera, steps.start, chosen) for camera in index.cameras]
    if not rows:
        rows = [Image.new("RGB", (_TILE, 1), _PAPER)]
    width = max(row.width for row in rows)
    height = sum(row.height for row in rows) + _GAP * (len(rows) - 1)
    sheet = Image.new("RGB", (width, height), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format="jpeg", quality=88)
    return buffer.getvalue()


def _row(index: Index, camera: str, first: int, steps: np.ndarray) -> Image.Image:
    tiles = [_tile(index, camera, first, step) for step in steps.tolist()]
    width = sum(tile.width + _GAP for tile in tiles) - _GAP
    row = Image.new("RGB", (width, tiles[0].height), _PAPER)
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + _GAP
    return row


def _tile(index: Index, camera: str, first: int, step: int) -> Image.Image:
    """One picture with the writing below it."""
    note = f"{camera} {step - first}"
    if index.spec.action[-1] == "gripper":
        note += f", gripper {index.action[step, -1]:.2g}"
    try:
        picture = Image.fromarray(decode(index.read_image(camera, step)))
    except ValueError:
        picture, note = Image.new("RGB", (_TILE, _TILE), (200, 200, 200)), f"{note}: -"
    # Small pictures grow by whole numbers, so that their pixels stay what they are.
    scale = max(_TILE // picture.height, min(1, _TILE / picture.height))
    size = (max(1, round(picture.width * scale)), round(picture.height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = picture.resize(size, method)
    if can_project(index, camera):
        _mark(picture, index, camera, first, step, scale)
    tile = Image.new("RGB", (max(size[0], _NOTE), size[1] + _STRIP), _PAPER)
    tile.paste(picture, (0, 0))
    ImageDraw.Draw(tile).text(
        (2, size[1] + 2), note, font=ImageFont.load_default(11), fill=_INK
    )
    return tile


def _mark(picture, index: Index, camera: str, first: int, step: int, scale: float):
    """Draws the way of the end effector so far, and a ring where it is."""
    past = np.arange(first, step + 1)
    pixels, in_front = project(index, camera, past, np.full_like(past, step))
    draw = ImageDraw.Draw(picture)
    way = [tuple(point) for point in (pixels * scale)[in_front].tolist()]
    if len(way) > 1:
        draw.line(way, fill=_MARK, width=1)
    if in_front[-1]:
        x, y = (pixels[-1] * scale).tolist()
        for radius, color in ((7, _PAPER), (6, _MARK), (5, _MARK)):
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, outline=color)
