"""Checkpoints: a thin wrapper around Orbax that never trusts a file it did not check.

The folder serves alone:

    config.json  metadata.json  tokenizer.model     what the weights mean
    1000/  2000/  ...                               one folder per saved step
        params/  ema_params/  collections/          what a policy is
        optimizer/  counters/  position/            what training needs to go on
        files.json                                  size and CRC-32 of every file

Orbax writes a step beside its place and renames it when it is complete, so a killed
run leaves no half step. `files.json` is written before that rename; it tells a file
that was damaged later from an intact one, which the array format itself does not.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import tree_leaves_with_path
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vla_jax.train.integrity import find_damage, write_listing
from vla_jax.train.paths import leaf_path
from vla_jax.train.step import TrainState

_WEIGHTS = ("params", "ema_params", "collections")


class Checkpointer:
    """Saves and restores train states of one run, in the background where possible.

    Use it as a context manager: leaving it waits for the last save.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int | None = None,
        keep_steps: Iterable[int] = (),
    ):
        """Opens `folder`, creating it when absent, and removes unfinished saves.

        Args:
            folder: where the steps lie.
            keep: number of latest steps to keep; None or 0 keeps all.
            keep_steps: steps that are kept besides, such as the ends of phases.
        """
        self.folder = Path(folder).absolute()
        self._saving = None
        kept = [
            preservation_policy.LatestN(keep or None),
            preservation_policy.CustomSteps(list(keep_steps)),
        ]
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Every step that was saved completely, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The last saved step; None when there is none."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: TrainState, position: Mapping[str, Any]) -> None:
        """Copies `state` off the devices and writes it while training goes on.

        The state may be donated as soon as this returns. An earlier save that is still
        being written is waited for.

        Args:
            step: `state.step` as a number that the host knows without waiting.
            position: what else training needs to go on, as JSON.
        """
        self._manager.wait_until_finished()
        self._saving = step
        items = {
            name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()
        }
        position = ocp.args.JsonSave(dict(position))
        self._manager.save(step, args=ocp.args.Composite(position=position, **items))

    def save_variables(self, step: int, variables: Mapping[str, Any]) -> None:
        """Writes what a policy is and nothing that training would need to go on.

        Args:
            step: of the folder.
            variables: `{"params": ..., other collections}`.
        """
        self._manager.wait_until_finished()
        self._saving = step
        items = {"params": ocp.args.StandardSave(variables["params"])}
        others = {k: v for k, v in variables.items() if k != "params"}
        if others:
            items["collections"] = ocp.args.StandardSave(others)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Returns when the last save is on disk."""
        self._manager.wait_until_finished()

    def position(self, step: int) -> dict[str, Any]:
        """The `position` that was saved with `step`.

        Raises:
            ValueError: the step does not exist or one of its files is damaged.
        """
        self.require(step)
        items = ocp.args.Composite(position=ocp.args.JsonRestore())
        return self._manager.restore(step, args=items)["position"]

    def restore(self, step: int, state: TrainState) -> TrainState:
        """Reads the state saved at `step`.

        Args:
            state: shapes with shardings (`jax.ShapeDtypeStruct`) in the structure to
                restore; the shardings may differ from those of the run that saved.

        Raises:
            ValueError: a damaged file, or a state of another structure or shape.
        """
        self.require(step)
        wanted = _items(state)
        saved = {path.name for path in (self.folder / str(step)).iterdir()}
        missing = sorted(set(wanted) - saved)
        if missing:
            raise ValueError(
                f"Checkpoint {self.folder / str(step)} holds no {missing}, which this "
                "config needs; start in another folder."
            )
        for name in set(wanted) & set(_WEIGHTS):
            _require_shapes(self.folder / str(step) / name, wanted[name])
        items = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Checkpoint {self.folder / str(step)} does not fit the optimizer of "
                f"this config: {error}"
            ) from error
        return state.replace(
            step=found["counters"]["step"],
            phase_step=found["counters"]["phase_step"],
            params=found["params"],
            collections=found["collections"] if state.collections else {},
            opt_state=found["optimizer"],
            ema_params=None if state.ema_params is None else found["ema_params"],
        )

    def discard_after(self, step: int) -> None:
        """Deletes every step later than `step`, which training is about to repeat."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def require(self, step: int) -> None:
        """Checks every file of `step`.

        Raises:
            ValueError: naming the file and the steps that are intact.
        """
        _require_intact(self.folder, step, None)

    def _seal(self) -> None:
        """Lists the files of the step being saved; Orbax calls it before the rename."""
        if jax.process_index():
            return
        (folder,) = self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        write_listing(folder)


def write_description(
    folder: str | Path,
    *,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tokenizer: bytes | None,
) -> None:
    """Writes what the weights in `folder` mean; each file is replaced as a whole.

    Args:
        config: the resolved config, JSON.
        metadata: `Source.metadata()`, JSON: statistics, cameras, sizes, action kinds.
        tokenizer: the serialized text model; None for a model that reads no text.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "config.json": json.dumps(config, indent=2).encode(),
        "metadata.json": json.dumps(metadata, indent=2).encode(),
        "tokenizer.model": tokenizer,
    }
    for name, content in contents.items():
        if content is not None:
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_bytes(content)
            os.replace(temporary, folder / name)


def find_folder(folder: str | Path) -> Path:
    """Accepts a run folder or the `checkpoints` folder in it, and returns the latter.

    Raises:
        ValueError: neither holds a `config.json`; the message lists what is there.
    """
    folder = Path(folder)
    for place in (folder / "checkpoints", folder):
        if (place / "config.json").is_file():
            return place.absolute()
    if not folder.is_dir():
        raise ValueError(f"Checkpoint folder {folder} does not exist.")
    raise ValueError(
        f"No checkpoint in {folder}: expected config.json there or in its folder "
        f"'checkpoints', found {sorted(path.name for path in folder.iterdir())}."
    )


def saved_steps(folder: str | Path) -> list[int]:
    """The saved steps of a checkpoint folder, in order."""
    names = (path.name for path in Path(folder).iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isdigit())


def restore_variables(
    folder: str | Path, step: int | None = None, *, ema: bool = True
) -> dict[str, Any]:
    """Reads the variables of a model, as NumPy arrays and on any machine.

    Args:
        folder: a run folder or its checkpoint folder.
        step: a saved step, the latest by default.
        ema: whether to take the averaged parameters where the run kept them.

    Returns:
        `{"params": ..., other collections}`, what `model.apply` takes.

    Raises:
        ValueError: no such step, or a damaged file.
    """
    folder = find_folder(folder)
    steps = saved_steps(folder)
    if not steps:
        raise ValueError(f"{folder} holds no saved step yet.")
    step = steps[-1] if step is None else step
    _require_intact(folder, step, _WEIGHTS)
    place = folder / str(step)
    averaged = ema and (place / "ema_params").is_dir()
    variables = {
        "params": _read_numpy(place / ("ema_params" if averaged else "params"))
    }
    if (place / "collections").is_dir():
        variables |= _read_numpy(place / "collections")
    return variables


def _items(state: TrainState) -> dict[str, Any]:
    """The parts of a state that are saved under names of their own; none is empty."""
    items = {
        "counters": {"step": state.step, "phase_step": state.phase_step},
        "params": state.params,
        "optimizer": state.opt_state,
    }
    if state.collections:
        items["collections"] = state.collections
    if state.ema_params is not None:
        items["ema_params"] = state.ema_params
    return items


def _read_numpy(folder: Path) -> dict[str, Any]:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, restore_args=arrays)


def _require_shapes(folder: Path, wanted: Any) -> None:
    """Compares names and shapes, which Orbax reports one at a time and at length."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
    saved, now = (
        {leaf_path(keys): leaf.shape for keys, leaf in tree_leaves_with_path(part)}
        for part in (tree, wanted)
    )
    lines = [
        f"\n  {path}: {saved.get(path, 'absent')} saved, {now.get(path, 'absent')} now"
        for path in sorted(saved.keys() | now.keys())
        if saved.get(path) != now.get(path)
    ]
    if lines:
        raise ValueError(
            f"Checkpoint {folder} does not fit the model of this config:"
            f"{''.join(lines[:10])}{f' and {len(lines) - 10} more' * (len(lines) > 10)}"
        )


def _require_intact(folder: Path, step: int, items: Iterable[str] | None) -> None:
    steps = saved_steps(folder)
    if step not in steps:
        raise ValueError(f"{folder} holds no step {step}; saved steps are {steps}.")
    damage = find_damage(folder / str(step), items)
    if damage:
        intact = [
            s for s in steps if s != step and not find_damage(folder / str(s), items)
        ]
        raise ValueError(
            f"Checkpoint step {step} is damaged: {damage}. Intact steps: "
            f"{intact or 'none'}. To use one of them, name it (--resume_step in "
            "training), or delete the damaged folder."
        )
