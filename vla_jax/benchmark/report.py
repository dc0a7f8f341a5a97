"""What every benchmark ends with: a table, a JSON file, and the machine it ran on."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "grain", "numpy", "simplejpeg")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        name: benchmark and quantity, such as "loader/frames_per_s".
        value: the number.
        unit: its unit, "1" for ratios.
        turns: number of measurements of which `value` is the median.
        low, high: their range; `value` where they are left out.
    """

    name: str
    value: float
    unit: str
    turns: int = 1
    low: float | None = None
    high: float | None = None

    @classmethod
    def over(cls, name: str, values: Sequence[float], unit: str) -> "Row":
        """The median of several measurements, with their number and range."""
        middle = statistics.median(values)
        return cls(name, middle, unit, len(values), min(values), max(values))


def write_report(rows: Sequence[Row], out: str | Path) -> None:
    """Prints a table and, if `out` is not empty, writes the JSON file.

    The file holds `{"rows": [{"name", "value", "unit", "turns", "low", "high"}, ...],
    "machine": {...}}`.
    """
    print(format_table(rows), flush=True)
    if not out:
        return
    content = {
        "rows": [_to_json(row) for row in rows],
        "machine": machine(),
    }
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {path}")


def format_table(rows: Sequence[Row]) -> str:
    """Rows as aligned text: name, value with about four digits, unit, and range."""
    cells = [(row.name, _format(row.value), row.unit + _range(row)) for row in rows]
    name = max(len(cell[0]) for cell in cells)
    value = max(len(cell[1]) for cell in cells)
    return "\n".join(f"{n:<{name}}  {v:>{value}}  {u}" for n, v, u in cells)


def machine() -> dict:
    """Hardware and versions that a number depends on."""
    devices = jax.devices()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def resident_mb() -> float:
    """Memory of this process that is in RAM now, in MB (Linux).

    Raises:
        ValueError: the system does not tell.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        raise ValueError(
            f"Resident memory is read from {status}, which {platform.system()} does "
            "not have; run this benchmark on Linux or with --memory_batches=0."
        )
    (line,) = (s for s in status.read_text().splitlines() if s.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def _to_json(row: Row) -> dict:
    low, high = (row.value if end is None else end for end in (row.low, row.high))
    return {**dataclasses.asdict(row), "low": low, "high": high}


def _range(row: Row) -> str:
    if row.turns == 1:
        return ""
    return f"  ({_format(row.low)} to {_format(row.high)}, {row.turns} turns)"


def _format(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 4
    return f"{value:,.{decimals}f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.processor() or platform.machine()


def _memory_gib() -> float:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(pages / 2**30, 1)
