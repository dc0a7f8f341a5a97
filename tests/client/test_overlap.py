import numpy as np
import pytest

from vla_jax.client.overlap import OverlapPlan


def column(*values):
    return np.array(values, np.float32)[:, None]


def actions(plan, steps):
    return [float(plan[step][0]) for step in steps]


def test_a_late_chunk_loses_its_past_and_is_blended_into_the_plan():
    plan = OverlapPlan(blend=3)
    assert 0 not in plan
    assert plan.add(column(0, 0, 0, 0, 0, 0), seen=0, now=0)
    # Seen at step 2, here at step 3: its first action is past.
    assert plan.add(column(8, 8, 8, 8, 8, 8), seen=2, now=3)
    assert 2 not in plan and 8 not in plan
    # The old plan ends after step 5: (k + 1) / 4 of 8, then all of it.
    assert actions(plan, range(3, 8)) == [2, 4, 6, 8, 8]


def test_where_the_old_plan_ends_the_new_one_counts_alone():
    plan = OverlapPlan(blend=3)
    plan.add(column(0, 0), seen=0, now=0)
    plan.add(column(4, 4, 4), seen=1, now=1)
    assert actions(plan, range(1, 4)) == [1, 4, 4]


def test_without_blending_the_new_chunk_counts_at_once():
    plan = OverlapPlan(blend=0)
    plan.add(column(0, 0, 0), seen=0, now=0)
    plan.add(column(5, 6, 7), seen=0, now=1)
    assert actions(plan, (1, 2)) == [6, 7]


def test_a_chunk_that_is_all_past_is_dropped():
    plan = OverlapPlan(blend=1)
    plan.add(column(1, 2, 3, 4), seen=0, now=0)
    assert not plan.add(column(9, 9), seen=0, now=2)
    assert actions(plan, (2, 3)) == [3, 4]


def test_a_gripper_switches_halfway():
    plan = OverlapPlan(blend=3, kinds=("relative", "gripper"))
    plan.add(np.zeros((4, 2)), seen=0, now=0)
    plan.add(np.ones((4, 2)), seen=0, now=0)
    assert [plan[k].tolist() for k in range(3)] == [[0.25, 0], [0.5, 1], [0.75, 1]]


def test_a_negative_blend_is_refused():
    with pytest.raises(ValueError, match="blend is -1"):
        OverlapPlan(blend=-1)
