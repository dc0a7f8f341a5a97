from tests.serving.fake_policy import SCHEMA
from vla_jax.serving.card import model_card


def test_the_card_tells_of_the_evaluation_and_what_was_not_run():
    row = dict(episodes=4, successes=3, success_rate=0.75, interval=[0.3, 0.95])
    evaluation = dict(
        environment="metaworld",
        seed=7,
        tasks={"reach": row},
        mean_success=0.75,
        interval=[0.3, 0.95],
    )
    provenance = dict(
        code={"vla_jax": "1"},
        datasets=[],
        checkpoint="run",
        seed=0,
        step=3,
        steps_planned=3,
        averaged=False,
        sampling={"num_steps": 4},
        date="today",
        evaluation=evaluation,
    )
    exported = dict(jax="0.1", platforms=["cpu", "tpu"])
    details = dict(
        provenance=provenance, exported=exported, execute=None, ensemble=0.01
    )
    card = model_card("mine", SCHEMA, details, {})
    assert "| reach | 3/4 | 30.0% to 95.0% |" in card
    assert "| `num_steps` | 4, unlike in training |" in card
    assert "For cpu, tpu it was lowered, not run." in card
    assert "averaged over overlapping chunks with rate 0.01" in card
