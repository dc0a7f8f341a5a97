"""Which attempts are played, and which are kept."""

import pytest

from vla_jax.simulation.plan import TaskPlan


def _stage(folder, **attempts):
    folder.mkdir(exist_ok=True)
    for number, kind in attempts.items():
        (folder / f"{int(number[1:]):06d}.9.{kind}").write_bytes(b"")


def test_attempts_are_given_out_in_order_and_no_more_than_needed(tmp_path):
    plan = TaskPlan(tmp_path / "reach", 2)
    assert [plan.next_attempt() for _ in range(3)] == [0, 1, None]
    plan.finish(1, 50, True)
    plan.finish(0, 200, False)
    assert not plan.finished
    assert plan.next_attempt() == 2
    plan.finish(2, 40, True)
    assert plan.finished and plan.kept == [1, 2]
    assert plan.next_attempt() is None
    assert plan.report() == {"kept": 2, "attempts": 3, "mean_steps": 45.0}


def test_an_early_attempt_that_is_still_open_may_replace_a_later_one(tmp_path):
    plan = TaskPlan(tmp_path / "reach", 1)
    _stage(tmp_path / "reach", a1="success")
    plan = TaskPlan(tmp_path / "reach", 1)
    assert not plan.finished
    assert plan.next_attempt() == 0
    assert plan.next_attempt() is None
    plan.finish(0, 30, True)
    assert plan.finished and plan.kept == [0]


def test_staged_attempts_are_not_played_again(tmp_path):
    _stage(tmp_path / "reach", a0="success", a1="failed", a3="success")
    (tmp_path / "reach" / "000002.partial").write_bytes(b"half")
    plan = TaskPlan(tmp_path / "reach", 3)
    assert not (tmp_path / "reach" / "000002.partial").exists()
    assert plan.next_attempt() == 2
    plan.finish(2, 9, False)
    assert plan.next_attempt() == 4


def test_a_hopeless_task_is_an_error_with_its_counts(tmp_path):
    _stage(tmp_path / "push", **{f"a{n}": "failed" for n in range(30)})
    with pytest.raises(ValueError, match=r"'push' succeeded in only 0 of 30"):
        TaskPlan(tmp_path / "push", 1).next_attempt()
