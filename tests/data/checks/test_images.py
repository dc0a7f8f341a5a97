"""Missing, damaged, blank and wrongly sized images; projections; strips."""

import dataclasses
import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from tests import fake_arm, fake_robot
from vla_jax.data.checks.contact_sheet import choose_episodes, draw_strip
from vla_jax.data.checks.finding import Sample
from vla_jax.data.checks.projection import project
from vla_jax.data.index import open_index
from vla_jax.data.validate import validate


def _store(monkeypatch, data, *, only_black):
    """Makes the writer store `data`, which it would refuse; other writers might not."""
    import vla_jax.data.write as write

    encode = write._encode_image

    def replaced(key, spec, image):
        if only_black and np.asarray(image).any():
            return encode(key, spec, image)
        return data

    monkeypatch.setattr(write, "_encode_image", replaced)


def _black(number, steps):
    if number == 3:
        steps["image"][7] = 0


def test_a_missing_image_is_found(tmp_path, monkeypatch):
    _store(monkeypatch, b"", only_black=True)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, _black))
    assert finding.level == "warning" and finding.episodes == (3,)
    assert finding.sentence == "Camera 'primary' has no image in 1 of 120 steps."


def test_a_camera_without_images_is_an_error(tmp_path, monkeypatch):
    _store(monkeypatch, b"", only_black=False)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path))
    assert finding.level == "error"
    assert finding.sentence == "Camera 'primary' has no image in 120 of 120 steps."


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            simplejpeg.encode_jpeg(np.zeros((2, 4, 3), np.uint8)),
            "has the size (2, 4); the data set states (8, 8).",
        ),
        (b"\xff\xd8\xff broken", "cannot be decoded: "),
    ],
)
def test_images_that_training_cannot_use_are_errors(
    tmp_path, monkeypatch, data, sentence
):
    _store(monkeypatch, data, only_black=False)
    report = fake_arm.check(tmp_path)
    finding = fake_arm.found(report, "pixels")
    assert finding.level == "error"
    assert finding.sentence.startswith(f"The 'primary' image of step 0 {sentence}")


def test_images_of_a_single_color_are_found(tmp_path):
    def shade(number, steps):
        steps["image"][:] = 9 * np.arange(24)[:, None, None, None]

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, shade))
    assert finding.sentence == (
        "64 of 64 sampled images of camera 'primary' are of a single color."
    )


def test_depth_in_other_units_is_found(tmp_path):
    folder = fake_robot.write_robot(tmp_path)

    def depth(**changes):
        spec = dataclasses.replace(fake_robot.ROBOT, **changes)
        report, _ = validate(open_index(folder, spec, progress=False))
        return fake_arm.found(report, "depth")

    assert depth().level == "ok"
    # Halfway between the steps at 500 and 600 mm, and 7.5 mm for the middle pixel.
    wrong = depth(depth_scale={"primary": 1.0})
    assert wrong.sentence == "Camera 'primary' sees 558 m far in the median."
    assert wrong.level == "warning"
    image = depth(depth={"primary": "steps/image"})
    assert image.level == "error"
    assert "depth image of step 0 cannot be decoded" in image.sentence


def test_an_end_effector_outside_the_picture_is_found(tmp_path):
    def behind(raw):
        fields = fake_arm.standardize(raw)
        extrinsics = np.array(fake_arm.EXTRINSICS) @ np.diag([1, 1, -1, 1])
        extrinsics[2, 3] = -1
        camera = fields["camera"]["primary"] | {"extrinsics": extrinsics}
        return fields | {"camera": {"primary": camera}}

    spec = dataclasses.replace(fake_arm.ARM, standardize=behind)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, spec=spec))
    assert finding.sentence == (
        "The end effector lies within the picture of camera 'primary' in 0% of 64 "
        "sampled steps."
    )


def test_without_a_camera_model_the_report_says_so(tmp_path):
    def bare(raw):
        return fake_arm.standardize(raw) | {"camera": None}

    spec = dataclasses.replace(fake_arm.ARM, standardize=bare)
    finding = fake_arm.found(fake_arm.check(tmp_path, spec=spec), "projection")
    assert finding.level == "skipped"
    assert finding.sentence.startswith("There is no camera model (poses, intrinsics")


def test_the_end_effector_is_projected_and_marked(tmp_path):
    index = open_index(fake_arm.write_arm(tmp_path), fake_arm.ARM, progress=False)
    pixels, in_front = project(index, "primary", np.array([0]))
    # At (0, 0, 0.3), under the camera: in the middle of the picture of 8 x 8.
    np.testing.assert_allclose(pixels, [[4, 4]], atol=1e-5)
    assert in_front.all()
    sample = Sample.draw(index, 0)
    with Image.open(io.BytesIO(draw_strip(sample, 2, moments=3))) as strip:
        # Three tiles of 18 x 8 pixels, 4 pixels apart, above 18 of writing.
        assert strip.size == (3 * 144 + 2 * 4, 144 + 18)
        ring = np.asarray(strip.convert("RGB"))[72 - 6, 72].astype(int)
    assert ring[0] > 180 and ring[2] < 100  # orange


def test_the_contact_sheet_shows_different_instructions(tmp_path):
    index = open_index(fake_arm.write_arm(tmp_path), fake_arm.ARM, progress=False)
    chosen = choose_episodes(Sample.draw(index, 0), 2)
    assert {number % 2 for number in chosen} == {0, 1}
    assert choose_episodes(Sample.draw(index, 0), 9) == [0, 1, 2, 3, 4]
