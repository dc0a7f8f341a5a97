"""Videos are complete files of the frames given, with a strip of text."""

import numpy as np
import pytest

from vla_jax.simulation.video import add_caption, write_video

av = pytest.importorskip("av")


def test_a_video_holds_the_frames_in_order(tmp_path):
    frames = [np.full((33, 48, 3), value, np.uint8) for value in (20, 120, 220)]
    write_video(tmp_path / "new" / "a.mp4", frames, fps=12.5)
    with av.open(str(tmp_path / "new" / "a.mp4")) as video:
        assert float(video.streams.video[0].average_rate) == 12.5
        decoded = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert [d.shape for d in decoded] == [(32, 48, 3)] * 3
    for frame, value in zip(decoded, (20, 120, 220), strict=True):
        assert abs(frame.astype(int) - value).max() < 8
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_frames_that_do_not_fit_leave_no_file(tmp_path):
    frames = [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"\(16, 32, 3\).*\(32, 32, 3\)"):
        write_video(tmp_path / "a.mp4", frames, fps=10)
    with pytest.raises(ValueError, match="No frames"):
        write_video(tmp_path / "a.mp4", [], fps=10)
    with pytest.raises(ValueError, match=r"\.mp4"):
        write_video(tmp_path / "a.gif", frames, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_a_caption_leaves_the_picture_as_it_is():
    frame = np.full((64, 64, 3), 77, np.uint8)
    plain = add_caption(frame, "open the drawer")
    good = add_caption(frame, "open the drawer", success=True)
    assert plain.shape[0] > 64 and plain.shape[1:] == (64, 3)
    np.testing.assert_array_equal(plain[:64], frame)
    assert plain[64:].max() > 200
    assert good[-1, -1].argmax() == 1
    assert add_caption(frame, "word " * 100).shape == plain.shape
