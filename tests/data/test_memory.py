"""Image memory is used again, but never while somebody can still see it."""

import numpy as np

from vla_jax.data.memory import Shelf


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_of_a_dropped_array_is_used_again():
    shelf = Shelf()
    array = shelf.empty((2, 3))
    assert array.shape == (2, 3) and array.dtype == np.uint8
    before = address(array)
    del array
    assert address(shelf.empty((3, 2))) == before


def test_memory_in_use_is_left_alone():
    shelf = Shelf()
    array = shelf.empty((4,))
    array[:] = 7
    view = array[1:3]
    del array
    other = shelf.empty((4,))
    other[:] = 9
    np.testing.assert_array_equal(view, [7, 7])


def test_another_size_leaves_free_memory_on_the_shelf():
    shelf = Shelf()
    small = shelf.empty((4000,))
    small[:] = 7
    before = address(small)
    del small
    large, smaller = shelf.empty((8000,)), shelf.empty((2000,))
    large[:], smaller[:] = 9, 9
    again = shelf.empty((4000,))
    assert address(again) == before
    assert np.all(again == 7)  # never given to anybody in between
