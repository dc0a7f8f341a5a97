"""CALVIN's metric on recorded episodes."""

import json

import numpy as np
import pytest

from vla_jax.simulation.chains import chain_lengths, format_chains, summarize_chains
from vla_jax.simulation.evaluation import format_table, summarize
from vla_jax.simulation.intervals import wilson_interval
from vla_jax.simulation.recorded import read_recorded, report_recorded
from vla_jax.simulation.rollout import Result

TASKS = ("open_drawer", "turn_on_led", "push_into_drawer", "lift_red", "close_drawer")


def chain(number, outcomes):
    return [
        Result(TASKS[place], number, 0, "do it", success, 9, chain=(number, place))
        for place, success in enumerate(outcomes)
    ]


FIVE, TWO, NONE = (True,) * 5, (True, True, False), (False,)
RECORDED = [*chain(0, FIVE), *chain(1, TWO), *chain(2, NONE), *chain(3, TWO)]


def test_the_first_failure_ends_a_chain():
    assert chain_lengths(RECORDED) == {0: 5, 1: 2, 2: 0, 3: 2}
    assert chain_lengths(RECORDED[::-1]) == {0: 5, 1: 2, 2: 0, 3: 2}
    last = (True,) * 4 + (False,)
    assert chain_lengths(chain(7, last)) == {7: 4}


def test_rates_of_one_to_five_in_a_row_add_up_to_the_average_length():
    report = summarize_chains([5, 2, 0, 2])
    assert report["chains"] == 4
    rates = [row["success_rate"] for row in report["in_a_row"].values()]
    assert rates == [0.75, 0.75, 0.25, 0.25, 0.25]
    assert report["in_a_row"]["3"]["reached"] == 1
    assert report["in_a_row"]["1"]["interval"] == list(wilson_interval(3, 4))
    assert report["average_length"] == sum(rates) == 2.25
    # Variance of 5, 2, 0, 2 about their mean: 12.75 / 3.
    spread = 1.96 * np.sqrt(4.25 / 4)
    np.testing.assert_allclose(report["interval"], [2.25 - spread, 2.25 + spread])


def test_the_interval_stays_within_what_is_possible():
    assert summarize_chains([5, 5])["interval"] == [5, 5]
    assert summarize_chains([0, 5])["interval"] == [0, 5]


def test_a_published_row_has_its_published_average():
    # GR-1 (Wu et al., 2023), ABC to D, per cent of 1000 chains.
    rates = np.array([854, 712, 596, 497, 401])
    reached = [*-np.diff(rates, prepend=1000), rates[-1]]
    lengths = np.repeat(np.arange(6), reached).tolist()
    assert round(summarize_chains(lengths)["average_length"], 2) == 3.06


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (chain(4, (True, False, True)), "Chain 4 goes on after a failure"),
        (chain(4, (True, True)), r"Chain 4 ends after 2 of 5 .* though none failed"),
        (chain(4, TWO)[1:], r"Chain 4 has the places \[1, 2\]"),
        (chain(4, FIVE)[:1] * 2, "Chain 4 has place 0 twice"),
    ],
)
def test_chains_that_cannot_be_are_refused(results, message):
    with pytest.raises(ValueError, match=message):
        chain_lengths(results)


def test_impossible_lengths_are_refused():
    for lengths in ([], [6], [-1]):
        with pytest.raises(ValueError, match="expected some, from 0 to 5"):
            summarize_chains(lengths)


def test_the_report_of_an_evaluation_has_chains_and_tasks():
    report = summarize(RECORDED)
    assert report["chains"]["average_length"] == 2.25
    assert report["tasks"]["open_drawer"]["successes"] == 3
    assert report["tasks"]["push_into_drawer"]["episodes"] == 3
    assert "chains" not in summarize([Result("a", 0, 0, "a", True, 1)])
    table = format_table(report)
    assert table.endswith(format_chains(report["chains"]))
    assert "  3    25.0%       1  4.6% to 69.9%" in table
    assert "average length 2.25, 0.23 to 4.27" in table


def test_recorded_episodes_are_read_and_reported(tmp_path):
    path = tmp_path / "episodes.jsonl"
    lines = [
        json.dumps(dict(task=r.task, success=r.success, chain=r.chain))
        for r in RECORDED
    ]
    path.write_text("\n".join(lines) + "\n")
    assert chain_lengths(read_recorded(path)) == {0: 5, 1: 2, 2: 0, 3: 2}
    report = report_recorded(path, tmp_path / "out", confidence=0.99)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["chains"] == report["chains"]
    assert written["confidence"] == 0.99 and len(written["episodes"]) == 12


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task": "a"}', "Line 2 of .* no recorded episode: .*success"),
        ('{"task": "a", "success": true, "mode": 1}', "Line 2 of .*'mode'"),
        ('{"task": "a", "success": 1}', "Line 2 of .* success=1; expected true"),
        ("{", "Line 2 of .* no recorded episode"),
    ],
)
def test_lines_that_are_no_episodes_are_named(tmp_path, line, message):
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"task": "a", "success": true}\n' + line)
    with pytest.raises(ValueError, match=message):
        read_recorded(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no episodes"):
        read_recorded(path)
    with pytest.raises(ValueError, match="There is no file"):
        read_recorded(tmp_path / "absent")
