"""Published mixtures by name, and how a config's `data.datasets` takes them.

    config.data.datasets = (dict(mixture="oxe_magic_soup", data_dir="~/data"),)

stands for one entry per data set of the mixture, found as `<data_dir>/<name>`. The
published weights multiply the size of a data set: 1 draws each of its steps as often as
a step of any other data set of weight 1, and 2 draws it twice as often.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vla_jax.data.remote import open_path
from vla_jax.names import check_keys, did_you_mean

_END = "_converted_externally_to_rlds"
_RT_X = {
    "fractal20220817_data": 0.54087122203,
    "kuka": 0.8341046294,
    "bridge_orig": 1.0,
    "taco_play": 2.0,
    "jaco_play": 2.0,
    "berkeley_cable_routing": 3.0,
    "roboturk": 1.0,
    "nyu_door_opening_surprising_effectiveness": 5.0,
    "viola": 2.0,
    "berkeley_autolab_ur5": 1.0,
    "toto": 1.0,
}
_FRANKA = {
    f"stanford_hydra_dataset{_END}": 1.0,
    f"austin_buds_dataset{_END}": 3.0,
    f"nyu_franka_play_dataset{_END}": 3.0,
    f"maniskill_dataset{_END}": 0.1,
    f"furniture_bench_dataset{_END}": 0.1,
    f"cmu_franka_exploration_dataset{_END}": 5.0,
    f"austin_sailor_dataset{_END}": 1.0,
    f"austin_sirius_dataset{_END}": 1.0,
    f"berkeley_rpt{_END}": 1.0,
    f"kaist_nonprehensile{_END}": 3.0,
    f"iamlab_cmu_pickup_insert{_END}": 1.0,
    "utaustin_mutex": 1.0,
    f"stanford_robocook{_END}": 1.0,
    "cmu_play_fusion": 1.0,
}
# Octo (Ghosh et al., 2024), table of the pre-training data.
_SOUP = {
    "fractal20220817_data": 0.54087122203,
    "kuka": 0.8341046294,
    "bridge_orig": 1.0,
    "taco_play": 2.0,
    "jaco_play": 1.0,
    "berkeley_cable_routing": 1.0,
    "roboturk": 2.0,
    "nyu_door_opening_surprising_effectiveness": 1.0,
    "viola": 2.0,
    "berkeley_autolab_ur5": 2.0,
    "toto": 1.0,
    "language_table": 0.1,
    f"stanford_hydra_dataset{_END}": 2.0,
    f"austin_buds_dataset{_END}": 1.0,
    f"nyu_franka_play_dataset{_END}": 3.0,
    f"furniture_bench_dataset{_END}": 0.1,
    f"ucsd_kitchen_dataset{_END}": 2.0,
    f"austin_sailor_dataset{_END}": 1.0,
    f"austin_sirius_dataset{_END}": 1.0,
    "bc_z": 0.2,
    f"dlr_edan_shared_control{_END}": 1.0,
    f"iamlab_cmu_pickup_insert{_END}": 1.0,
    "utaustin_mutex": 1.0,
    "berkeley_fanuc_manipulation": 2.0,
    "cmu_stretch": 1.0,
}
# OpenVLA (Kim et al., 2024) leaves out what only a wrist camera sees.
_SOUP_PLUS = {
    name: weight
    for name, weight in _SOUP.items()
    if name != "nyu_door_opening_surprising_effectiveness"
} | {"fmb_dataset": 1.0, "dobbe": 0.2, "droid": 0.06}

MIXTURES: dict[str, tuple[tuple[str, float], ...]] = {
    name: tuple(weights.items())
    for name, weights in {
        "bridge": {"bridge_orig": 1.0},
        "bridge_rt_1": {"bridge_orig": 1.0, "fractal20220817_data": 1.0},
        "rtx": _RT_X,
        "rtx_franka": _RT_X | _FRANKA,
        "oxe_magic_soup": _SOUP,
        "oxe_magic_soup_plus": _SOUP_PLUS,
        "oxe_magic_soup_plus_minus": {
            name: 1.0 if name == "fractal20220817_data" else weight
            for name, weight in _SOUP_PLUS.items()
            if name not in ("language_table", "droid")
        },
        "oxe_flex_act_soup": _SOUP
        | {
            f"berkeley_mvp{_END}": 1.0,
            "gnm_dataset": 1.0,
            "aloha_static_dataset": 3.0,
            "aloha_mobile_dataset": 2.0,
            "dobbe": 1.0,
            "roboset": 0.5,
            "rh20t": 0.5,
        },
        "libero_4_task_suites_no_noops": {
            f"libero_{suite}_no_noops": 1.0
            for suite in ("spatial", "object", "goal", "10")
        },
    }.items()
}
# The same data set under the other name that it is published as.
ALIASES = {
    "bridge_orig": ("bridge_dataset",),
    "fmb_dataset": ("fmb",),
    "roboset": ("robo_set",),
    "aloha_mobile_dataset": ("aloha_mobile",),
}
_KEYS = ("mixture", "data_dir", "without", "weight")


def expand_mixtures(datasets: Sequence[Mapping[str, Any]]) -> tuple[dict, ...]:
    """Replaces each mixture among the data sets of a config by its members.

    Args:
        datasets: dicts with `path`, `spec` and more, which stay as they are, and dicts
            with `mixture`, a name in `MIXTURES`; `data_dir`, the folder of its data
            sets; optionally `without`, names to leave out, and `weight`, a factor for
            all weights. Further keys are handed to every member.

    Returns:
        Dicts with `path` and `spec`; members of mixtures also have `weight` and
        `per_step`, True, as their weights multiply their sizes.

    Raises:
        ValueError: for an unknown mixture, and for members that are not in the folder,
            listing what is.
    """
    expanded = []
    for number, dataset in enumerate(datasets):
        if "mixture" in dataset:
            expanded += _members(dataset, f"data.datasets[{number}]")
        else:
            expanded.append(dict(dataset))
    return tuple(expanded)


def _members(entry: Mapping[str, Any], place: str) -> list[dict]:
    name = entry["mixture"]
    if name not in MIXTURES:
        raise ValueError(
            f"Unknown mixture {name!r} in {place}; {did_you_mean(name, MIXTURES)}"
        )
    members = dict(MIXTURES[name])
    given = {key: entry[key] for key in _KEYS if key in entry}
    check_keys(given, _KEYS, place, required=("mixture", "data_dir"))
    for other in entry.get("without", ()):
        if other not in members:
            raise ValueError(
                f"{place}.without names {other!r}, which is not in {name!r}; "
                f"{did_you_mean(other, members)}"
            )
        del members[other]
    folder = open_path(entry["data_dir"])
    if not folder.exists():
        raise ValueError(f"{place}.data_dir: there is no folder {folder}.")
    found = {
        child.name
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith(".")
    }
    places = {
        member: next((n for n in (member, *ALIASES.get(member, ())) if n in found), "")
        for member in members
    }
    missing = [member for member, where in places.items() if not where]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(members)} data sets of mixture "
            f"{name!r}: {missing}. It holds {sorted(found)}. Download what is missing, "
            f"or leave it out: without={tuple(missing)}."
        )
    more = {key: value for key, value in entry.items() if key not in _KEYS}
    return [
        {
            "path": str(folder / places[member]),
            "spec": places[member],
            "weight": weight * entry.get("weight", 1.0),
            "per_step": True,
            **more,
        }
        for member, weight in members.items()
    ]
