"""Instructions: coverage, encoding, placeholders, near duplicates; one fault each."""

import pytest

from tests import fake_arm


def _texts(*texts):
    def change(number, steps):
        steps["text"] = [texts[number % len(texts)]] * fake_arm.LENGTH

    return change


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["go", "", "go", "go", "go"], "20% of the steps have no instruction."),
        (["go", b"\xff"], "1 instructions are not valid UTF-8, such as '\ufffd'."),
        (["go", "N/A"], "1 instructions say nothing, such as 'N/A'."),
        (
            ["Lift the cup.", "lift  the cup"],
            "1 instructions differ from another only in case, spaces or punctuation, "
            "such as 'Lift the cup.' and 'lift  the cup'.",
        ),
    ],
)
def test_poor_instructions_are_found(tmp_path, texts, sentence):
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, _texts(*texts)))
    assert (finding.level, finding.sentence) == ("warning", sentence)
    assert finding.remedy.endswith(".")


def test_instructions_are_counted(tmp_path):
    finding = fake_arm.found(fake_arm.check(tmp_path), "instructions")
    assert finding.sentence == (
        "2 different instructions, the most common in 3 episodes."
    )
