"""The recipes of ACT and MSACT: every variant builds, and its parts fit together."""

import functools

import jax
import jax.numpy as jnp
import pytest

from configs import act, msact
from tests.fake_batch import make_batch
from vla_jax.data.standardize import resolve_spec
from vla_jax.models.build import build
from vla_jax.train.config import make_phases, resolve
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.ramp import weights_at
from vla_jax.train.step import init_variables

CASES = [(module, variant) for module in (act, msact) for variant in module.VARIANTS]


def batch_for(data):
    """One example as the config's data section makes them, in pictures of 64x64."""
    cameras = tuple(data["cameras"])
    batch = make_batch(
        batch=1,
        chunk=data["chunk"],
        action_dim=14,
        proprio_dim=14,
        cameras=cameras,
        image_size=64,
    )
    labels = {}
    for label in data.get("labels", ()):
        count = int(label["offsets"].partition(":")[2])
        mask = jnp.ones((1, count), bool)
        labels[label["name"]] = {
            "offset": jnp.ones((1, count), jnp.int32),
            "mask": mask,
            "image": {
                c: jnp.zeros((1, count, 64, 64, 3), jnp.uint8) for c in label["cameras"]
            },
            "image_mask": {c: mask for c in label["cameras"]},
        }
    return batch.replace(labels=labels)


@pytest.mark.parametrize(("module", "variant"), CASES)
def test_every_variant_has_a_loss_and_an_optimizer(module, variant):
    config = resolve(module.get_config(variant))
    (phase,) = make_phases(config["train"])
    draw = functools.partial(
        init_variables, build(config["model"]), dict(phase.loss_weights)
    )
    batch = batch_for(config["data"])
    shapes = jax.eval_shape(draw, batch, jax.random.key(0))
    make_optimizer(shapes, phase.steps, phase.freeze, **config["optimizer"])
    weights = weights_at(phase.loss_weights)
    assert weights == ({"align": 0.1} if module is msact else {})


@pytest.mark.parametrize(("module", "variant"), CASES)
def test_every_variant_reads_what_is_collected(module, variant):
    config = resolve(module.get_config(variant))
    data, (entry,) = config["data"], config["data"]["datasets"]
    spec = resolve_spec(entry["spec"])
    assert set(data["cameras"]) <= set(spec.cameras)
    assert len(spec.action) == config["model"]["head"]["action_dim"]
    assert entry["path"].endswith("/aloha/1.0.0")  # the name of the environment
    for label in data.get("labels", ()):
        assert set(label["cameras"]) <= set(data["cameras"])
    for module in config["model"].get("attention", ()):
        assert set(module["cameras"]) <= set(data["cameras"])


@pytest.mark.parametrize("module", [act, msact])
def test_an_unknown_variant_is_named(module):
    with pytest.raises(ValueError, match="Unknown variant 'big'; choose"):
        module.get_config("big")


@pytest.mark.parametrize("variant", ["", "small"])
def test_msact_differs_from_act_in_what_it_adds_alone(variant):
    """A comparison is fair only if nothing else changed by accident."""
    ours, baseline = (resolve(m.get_config(variant)) for m in (msact, act))
    for section, added in (
        ("data", {"labels", "cameras", "datasets"} if variant == "" else {"labels"}),
        ("model", {"attention"}),
        ("optimizer", {"learning_rate_scale"} if variant else set()),
        ("train", {"loss_weights"}),
        ("evaluation", set()),
    ):
        keys = ours[section].keys() | baseline[section].keys()
        differ = {
            key for key in keys if ours[section].get(key) != baseline[section].get(key)
        }
        assert differ == added, section


def test_only_the_small_msact_hides_its_points_in_training():
    for arg, share in (("", 0.0), ("small", 0.5), ("small,always_points", 0.0)):
        assert msact.get_config(arg).model.attention[0]["dropout"] == share
