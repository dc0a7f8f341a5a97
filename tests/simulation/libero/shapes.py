"""Shapes for tests: a book, a bowl and a wall, made of boxes."""

import numpy as np

from vla_jax.simulation.libero.geometry import Shape


def turn(degrees):
    """Rotation around the vertical, counterclockwise."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def boxes(halves, centers, degrees=None):
    """A shape of boxes with these half sizes at these places."""
    degrees = [0] * len(halves) if degrees is None else degrees
    rotations = np.stack([turn(angle) for angle in degrees])
    return Shape(np.array(centers, float), rotations, np.array(halves, float))


def book():
    """20 x 4 x 4 cm, turned by 30 degrees, on the floor at 1, 2."""
    return boxes([(0.1, 0.02, 0.02)], [(1, 2, 0.02)], [30])


def bowl():
    """A ring of eight posts, 12 cm wide and 5 cm high."""
    angles = np.arange(0, 360, 45)
    centers = [turn(angle) @ [0.06, 0, 0.025] for angle in angles]
    return boxes([(0.003, 0.02, 0.025)] * 8, centers, angles)


def wall(y):
    """20 cm high, along the x axis."""
    return boxes([(0.5, 0.01, 0.1)], [(0, y, 0.1)])
