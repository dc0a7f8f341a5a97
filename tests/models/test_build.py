import pytest

from tests.fake_batch import policy_config
from vla_jax.models.build import build, build_model

METADATA = dict(chunk=2, action_dim=3, vocab_size=8)


def test_nested_names_become_modules():
    policy = build(policy_config())
    assert type(policy.head).__name__ == "RegressionHead"
    assert policy.image["shared"].widths == (4, 4)


def test_unknown_name_suggests_the_nearest():
    config = policy_config()
    config["head"]["name"] = "regresion"
    with pytest.raises(ValueError, match=r"'regresion'; did you mean 'regression'"):
        build(config)


def test_unknown_field_suggests_the_nearest():
    config = policy_config()
    config["trunk"]["num_layer"] = 2
    with pytest.raises(ValueError, match=r"no field 'num_layer'; did you mean 'num_la"):
        build(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chunk", 4, "model.head.chunk is 2, but data.chunk is 4"),
        (
            "action_dim",
            7,
            "model.head.action_dim is 3, but the data's action size is 7",
        ),
        ("vocab_size", 9, "model.text.vocab_size is 8, but the tokenizer has 9"),
    ],
)
def test_mismatch_with_the_data_names_both_numbers(key, value, message):
    with pytest.raises(ValueError, match=message):
        build_model(policy_config(), {**METADATA, key: value})


def test_sizes_of_nested_heads_are_checked_too():
    config = policy_config()
    config["head"] = dict(name="hierarchical", anchor=dict(config["head"], chunk=4))
    with pytest.raises(ValueError, match=r"model.head.anchor.chunk is 4, but data.ch"):
        build_model(config, METADATA)


@pytest.mark.parametrize("dim", [1, 3, -1])
def test_only_what_the_data_call_a_gripper_is_decided(dim):
    config = policy_config()
    config["head"]["gripper_dims"] = [dim]
    kinds = ["relative", "relative", "gripper"]
    metadata = {**METADATA, "datasets": [dict(name="mine", action=kinds)]}
    with pytest.raises(ValueError, match=rf"has {dim}, .*'mine' are the dim.* \[2\]"):
        build_model(config, metadata)
    config["head"]["gripper_dims"] = [2]
    assert build_model(config, metadata).head.gripper_dims == (2,)
