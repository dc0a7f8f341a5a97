import numpy as np
import pytest

from vla_jax.serving.playing import ChunkPlayer


def play(player, chunks, steps):
    """Plays scalar actions; returns them and the steps at which a chunk was asked."""
    actions, asked = [], []
    chunks = iter(chunks)
    for step in range(steps):
        if player.is_due:
            asked.append(step)
            player.add(np.array(next(chunks), np.float32)[:, None])
        actions.append(float(player.next()[0]))
    return actions, asked


def test_the_whole_chunk_is_played_before_the_next_is_asked_for():
    actions, asked = play(ChunkPlayer(3), [[1, 2, 3], [4, 5, 6]], 5)
    assert (actions, asked) == ([1, 2, 3, 4, 5], [0, 3])


def test_execute_drops_the_rest_of_the_chunk():
    actions, asked = play(ChunkPlayer(3, execute=2), [[1, 2, 3], [4, 5, 6]], 4)
    assert (actions, asked) == ([1, 2, 4, 5], [0, 2])


def test_ensembling_weighs_the_oldest_prediction_most():
    player = ChunkPlayer(2, ensemble=np.log(3.0))
    actions, asked = play(player, [[0, 8], [0, 4], [16, 0]], 3)
    # Step 1: (3 * 8 + 1 * 0) / 4; step 2: (3 * 4 + 1 * 16) / 4.
    np.testing.assert_allclose(actions, [0, 6, 7], rtol=1e-6)
    assert asked == [0, 1, 2]


def test_ensembling_at_rate_zero_is_the_plain_mean():
    actions, _ = play(ChunkPlayer(2, ensemble=0.0), [[0, 8], [2, 0]], 2)
    np.testing.assert_allclose(actions, [0, 5])


def test_execute_beyond_the_chunk_is_refused():
    with pytest.raises(ValueError, match="execute=4 must lie between 1 and the chunk"):
        ChunkPlayer(3, execute=4)


def test_execute_and_ensemble_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        ChunkPlayer(3, execute=1, ensemble=0.1)
