"""The loop on a toy model: stopping and going on, phases, evaluation, refusals."""

import json
import os
import re
import signal

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.train import toy
from vla_jax.train.checkpoint import Checkpointer, restore_variables
from vla_jax.train.config import resolve
from vla_jax.train.feed import Feed
from vla_jax.train.interrupt import Interrupt
from vla_jax.train.loop import fit
from vla_jax.train.sharding import batch_sharding, make_mesh

ANCHOR = dict(
    name="anchor",
    steps=3,
    loss_weights=dict(residual=0.0),
    freeze=("residual",),
)
REFINE = dict(
    name="refine",
    steps=3,
    loss_weights=dict(anchor=0.0),
    freeze=("(?!residual).*",),
    optimizer=dict(learning_rate=0.05),
)


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """The same few programs are compiled by nearly every test of this file."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("cache")))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def make_config(*, seed=0, learning_rate=0.1, **train):
    defaults = dict(
        steps=4,
        log_every=1,
        save_every=100,
        eval_every=0,
        ema_decay=0.9,
        tensorboard=False,
    )
    return resolve(
        dict(
            seed=seed,
            data=dict(batch_size=4),
            model={},
            optimizer=dict(learning_rate=learning_rate),
            train={**defaults, **train},
        )
    )


def make_feed(mesh, make_batch, metadata, tokenizer=b"tokenizer"):
    sharding = batch_sharding(mesh, 4)

    def batches(numbers):
        for number in numbers:
            yield jax.device_put(make_batch(number), sharding)

    return Feed(
        train=lambda start: batches(range(start, 10**9)),
        validation=lambda: batches(range(2000, 2003)),
        names=["bridge", "metaworld"],
        metadata=metadata,
        tokenizer=tokenizer,
    )


def run(
    folder,
    config,
    *,
    make_batch=toy.make_batch,
    metadata=None,
    tokenizer=b"tokenizer",
    **options,
):
    """Trains the toy as `train` does with the real parts."""
    mesh = make_mesh(config["train"]["mesh"])
    feed = make_feed(mesh, make_batch, metadata or {"statistics": 1}, tokenizer)
    with Interrupt() as interrupt:
        return fit(
            config,
            folder,
            model=toy.Toy(),
            augment=toy.no_augment,
            feed=feed,
            mesh=mesh,
            interrupt=interrupt,
            **options,
        )


def stop_at(step, number=signal.SIGTERM):
    """A hook that sends the process a signal while it makes update `step`."""

    def on_batch(done, batch):
        del batch
        if done == step - 1:
            os.kill(os.getpid(), number)

    return on_batch


def saved(folder, step):
    """Every array of a saved step, by item and path."""
    arrays = {}
    for item in ("counters", "params", "ema_params", "collections", "optimizer"):
        place = folder / "checkpoints" / str(step) / item
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            shapes = checkpointer.metadata(place).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), shapes)
            tree = checkpointer.restore(place, restore_args=kinds)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[item + jax.tree_util.keystr(keys)] = np.asarray(leaf)
    return arrays


def rows(folder, *names):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [[json.loads(line).get(name) for name in names] for line in lines]


def test_two_steps_stop_resume_and_two_more_equal_four(tmp_path, capsys):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert run(straight, make_config()) == 4
    assert run(stopped, make_config(), on_batch=stop_at(2)) == 2
    message = "interrupted at step 2; run the same command to continue"
    assert message in capsys.readouterr().out
    assert run(stopped, make_config()) == 4
    chex.assert_trees_all_equal(saved(stopped, 4), saved(straight, 4))
    names = ("step", "loss", "gradient_norm", "learning_rate", "phase")
    assert rows(stopped, *names) == rows(straight, *names)
    assert len(rows(stopped, "step")) == 4


def test_an_interrupt_from_the_keyboard_saves_as_well(tmp_path):
    config = make_config()
    assert run(tmp_path, config, on_batch=stop_at(1, signal.SIGINT)) == 1
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.position(1) == dict(step=1, phase=0, position=1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_phases_keep_the_parameters_and_every_bit_of_what_they_freeze(tmp_path):
    config = make_config(steps=None, phases=(ANCHOR, REFINE))
    assert run(tmp_path, config) == 6
    before, after = saved(tmp_path, 3), saved(tmp_path, 6)
    for name, value in before.items():
        if not name.startswith(("params", "ema_params", "collections")):
            continue
        if "residual" in name:
            assert np.any(after[name] != value), name
        elif name.startswith("ema_params"):
            # The average starts again at the parameters on which the residual trains.
            np.testing.assert_array_equal(
                after[name], before[name.removeprefix("ema_")]
            )
        else:
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert not any("residual" in name for name in before if "optimizer" in name)
    moments = [name for name in after if "optimizer" in name and "kernel" in name]
    assert len(moments) == 2 and all("residual" in name for name in moments)
    assert after["counters['phase_step']"] == 3
    assert rows(tmp_path, "phase", "step")[2:4] == [["anchor", 3], ["refine", 4]]
    np.testing.assert_allclose(
        rows(tmp_path, "learning_rate")[::3], [[0.1], [0.05]], rtol=1e-6
    )


@pytest.mark.parametrize("step", [2, 3, 4])
def test_phases_resume_in_the_middle_and_at_their_boundary(tmp_path, step):
    config = make_config(steps=None, phases=(ANCHOR, REFINE))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(straight, config)
    assert run(stopped, config, on_batch=stop_at(step)) == step
    assert run(stopped, config) == 6
    chex.assert_trees_all_equal(saved(stopped, 6), saved(straight, 6))
    assert rows(stopped, "step", "loss") == rows(straight, "step", "loss")


def test_ends_of_phases_are_kept_beside_the_latest(tmp_path):
    config = make_config(steps=None, phases=(ANCHOR, REFINE), save_every=1, keep=1)
    run(tmp_path, config)
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [3, 6]


def test_two_devices_and_a_split_state_train_alike(tmp_path):
    run(tmp_path / "data", make_config(mesh=dict(data=2)))
    run(tmp_path / "fsdp", make_config(mesh=dict(fsdp=2)))
    a, b = rows(tmp_path / "data", "loss"), rows(tmp_path / "fsdp", "loss")
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_accumulated_micro_batches_train_and_resume(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    config = make_config(accumulate=2)
    assert run(straight, config) == 4
    run(stopped, config, on_batch=stop_at(2))
    run(stopped, config)
    chex.assert_trees_all_equal(saved(stopped, 4), saved(straight, 4))
    with pytest.raises(ValueError, match=r"\n  train.accumulate: 2 -> 4"):
        run(stopped, make_config(accumulate=4, steps=5))


def test_a_finished_run_does_nothing(tmp_path, capsys):
    run(tmp_path, make_config())
    before = saved(tmp_path, 4)
    assert run(tmp_path, make_config(), on_batch=stop_at(1)) == 4
    assert "is finished at step 4" in capsys.readouterr().out
    chex.assert_trees_all_equal(saved(tmp_path, 4), before)


def test_more_steps_continue_a_finished_run(tmp_path):
    run(tmp_path, make_config(steps=2))
    assert run(tmp_path, make_config(steps=3)) == 3
    config = json.loads((tmp_path / "checkpoints" / "config.json").read_text())
    assert config["train"]["steps"] == 3


def test_the_folder_serves_alone(tmp_path):
    run(tmp_path, make_config())
    folder = tmp_path / "checkpoints"
    assert json.loads((folder / "config.json").read_text()) == make_config()
    assert json.loads((folder / "metadata.json").read_text()) == {"statistics": 1}
    assert (folder / "tokenizer.model").read_bytes() == b"tokenizer"
    variables = restore_variables(tmp_path)
    loss, _ = toy.Toy().apply(
        variables,
        toy.make_batch(0),
        train=False,
        rngs={"noise": jax.random.key(0)},
        method="loss",
    )
    assert np.all(np.isfinite(loss))


def test_another_config_or_data_set_is_refused_with_what_differs(tmp_path):
    run(tmp_path, make_config())
    with pytest.raises(ValueError, match=r"another config:\n  optimizer.learning_rate"):
        run(tmp_path, make_config(learning_rate=0.2, steps=5))
    with pytest.raises(ValueError, match=r"another data set:\n  statistics: 1 -> 2"):
        run(tmp_path, make_config(steps=5), metadata={"statistics": 2})


def test_another_tokenizer_is_refused_and_the_stored_one_stays(tmp_path):
    run(tmp_path, make_config())
    path = tmp_path / "checkpoints" / "tokenizer.model"
    message = f"{tmp_path} was started with another tokenizer: {path} differs from"
    for tokenizer in (b"other", None):
        with pytest.raises(ValueError, match=re.escape(message)):
            run(tmp_path, make_config(steps=5), tokenizer=tokenizer)
    assert path.read_bytes() == b"tokenizer"
    assert run(tmp_path, make_config(steps=5)) == 5


def test_validation_uses_the_average_and_the_same_draws(tmp_path):
    run(tmp_path, make_config(eval_every=2, learning_rate=1e-12))
    values = [row for row in rows(tmp_path, "step", "validation/loss") if row[1]]
    assert [step for step, _ in values] == [2, 4]
    np.testing.assert_allclose(values[0][1], values[1][1], rtol=1e-5)


def test_nothing_to_validate_on_is_an_error_before_the_first_step(tmp_path):
    def refuse():
        raise ValueError("No data set has validation episodes.")

    seen = []
    config = make_config(eval_every=2)
    feed = make_feed(make_mesh(), toy.make_batch, {})._replace(validation=refuse)
    with Interrupt() as interrupt, pytest.raises(ValueError, match="eval_every to 0"):
        fit(
            config,
            tmp_path,
            model=toy.Toy(),
            augment=toy.no_augment,
            feed=feed,
            mesh=make_mesh(),
            interrupt=interrupt,
            on_batch=lambda step, batch: seen.append(step),
        )
    assert seen == []


def test_a_loss_that_is_not_finite_stops_and_the_checkpoint_before_it_is_good(tmp_path):
    def make_batch(number):
        batch = toy.make_batch(number)
        if number == 2:
            batch.action[:] = np.inf
            return batch.replace(dataset=np.zeros(4, np.int32))
        return batch

    config = make_config(save_every=2, log_every=50)
    message = r"step 3: the loss is .*\['bridge'\].*Last good checkpoint: step 2"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, config, make_batch=make_batch)
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [2]
    chex.assert_tree_all_finite(saved(tmp_path, 2))


def test_a_damaged_checkpoint_is_left_only_when_told_so(tmp_path):
    config = make_config(save_every=2)
    run(tmp_path, config)
    straight = saved(tmp_path, 4)
    folder = tmp_path / "checkpoints" / "4" / "params"
    path = max((p for p in folder.rglob("*") if p.is_file()), key=os.path.getsize)
    os.truncate(path, 1)
    message = re.escape(str(path)) + r" has 1 bytes.*Intact steps: \[2\]"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, config)
    with pytest.raises(ValueError, match=r"no step 3; saved steps are \[2, 4\]"):
        run(tmp_path, config, resume_step=3)
    assert run(tmp_path, config, resume_step=2) == 4
    chex.assert_trees_all_equal(saved(tmp_path, 4), straight)


def test_the_size_of_the_run_is_printed_before_the_first_step(tmp_path, capsys):
    run(tmp_path, make_config(steps=1))
    text = capsys.readouterr().out
    # trunk 3*8+8, anchor and residual 8*4+4 each
    assert "phase train, steps 0 to 1: 104 parameters, 0 of them frozen" in text
    assert "MiB per device; mesh replica 1 x data 2 x fsdp 1 x tensor 1 of cpu" in text


def test_a_batch_that_the_hook_sees_has_its_number(tmp_path):
    seen = []
    run(tmp_path, make_config(), on_batch=lambda step, batch: seen.append(step))
    assert seen == [0, 1, 2, 3]
