"""Histograms come from the sketch and count every step once."""

from xml.etree import ElementTree

import numpy as np

from vla_jax.data.checks.histogram import draw_histogram, histograms
from vla_jax.data.statistics import Streaming


def test_a_histogram_of_few_values_is_exact():
    streaming = Streaming(2)
    streaming.update(np.array([[0, 5], [0, 5], [1, 5], [4, 5]], np.float32))
    first, constant = histograms(streaming, bins=4)
    np.testing.assert_allclose(first["edges"], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(first["shares"], [0.5, 0.25, 0, 0.25])
    np.testing.assert_allclose(constant["edges"], [4.5, 4.75, 5, 5.25, 5.5])
    np.testing.assert_allclose(constant["shares"], [0, 0, 1, 0])
    assert first["below"] == first["above"] == 0


def test_outliers_are_told_apart_from_the_bins():
    streaming = Streaming(1)
    values = np.append(np.linspace(0, 1, 999), 1000)
    streaming.update(values[:, None].astype(np.float32))
    (histogram,) = histograms(streaming)
    assert histogram["edges"][-1] < 2
    np.testing.assert_allclose(histogram["above"], 0.001, atol=1e-9)
    np.testing.assert_allclose(histogram["shares"].sum(), 0.999, atol=1e-9)


def test_a_histogram_of_many_values_is_as_exact_as_the_quantiles():
    streaming = Streaming(1)
    values = np.random.default_rng(0).uniform(size=50_000).astype(np.float32)
    streaming.update(values[:, None])
    (histogram,) = histograms(streaming, bins=10)
    expected, _ = np.histogram(values, histogram["edges"])
    error = 2 * streaming.finish().quantile_error
    assert 0 < error < 0.01
    np.testing.assert_allclose(histogram["shares"], expected / 50_000, atol=error)


def test_a_drawing_is_an_svg_with_a_bar_per_filled_bin():
    streaming = Streaming(1)
    streaming.update(np.array([[-1], [-1], [1]], np.float32))
    (histogram,) = histograms(streaming, bins=4)
    drawing = ElementTree.fromstring(draw_histogram(histogram))
    heights = [float(bar.get("height")) for bar in drawing.iter("rect")]
    assert heights == [72, 36]
    assert [text.text for text in drawing.iter("text")] == ["-1", "1"]
