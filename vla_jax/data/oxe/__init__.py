"""Data sets of the Open X-Embodiment collection and those used along with it.

One file per group of laboratories; `gripper`, `motion` and `language` hold what their
conventions have in common. `docs/data.md` lists all entries and where their schemas and
conventions are from.
"""

from vla_jax.data.oxe import (
    america,
    austin,
    benchmarks,
    berkeley,
    cmu,
    europe_asia,
    google,
    navigation,
    nyu,
    stanford,
)
from vla_jax.data.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for module in (
        google,
        berkeley,
        austin,
        stanford,
        nyu,
        cmu,
        america,
        europe_asia,
        navigation,
        benchmarks,
    )
    for spec in module.SPECS
}
