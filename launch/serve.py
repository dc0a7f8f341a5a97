"""Serves a policy bundle over openpi's websocket protocol.

    python launch/serve.py --policy=policy --port=8000

`openpi-client` and `vla_jax.client` talk to it. Clients are let in once the policy is
compiled; SIGTERM finishes the answers under way and ends the server. docs/serving.md
describes messages and layouts.
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

_POLICY = flags.DEFINE_string("policy", None, "Bundle folder.", required=True)
_HOST = flags.DEFINE_string("host", "0.0.0.0", "Address to listen at; all by default.")
_PORT = flags.DEFINE_integer("port", 8000, "Port; 0 takes a free one.", lower_bound=0)
_PROGRAM = flags.DEFINE_enum(
    "program", "exported", ["exported", "live"], "What runs: see docs/serving.md."
)
_LAYOUT = flags.DEFINE_string(
    "layout", "vla_jax", "Names that clients use: vla_jax, libero, droid or aloha."
)
_NAMES = flags.DEFINE_list(
    "names", [], "Changes of names, as in image/primary=cam0,proprio=joints+gripper."
)
_GRIPPER = flags.DEFINE_string(
    "gripper", None, "What clients take for open: open_1, closed_1, closed_1_open_-1."
)
_API_KEY_FILE = flags.DEFINE_string(
    "api_key_file", None, "File with the key; else the variable VLA_JAX_API_KEY."
)
_MAX_BATCH = flags.DEFINE_integer(
    "max_batch", 8, "Clients answered by one call of the policy.", lower_bound=1
)
_MAX_CLIENTS = flags.DEFINE_integer("max_clients", 64, "Connections.", lower_bound=1)
_MAX_MESSAGE_MB = flags.DEFINE_integer(
    "max_message_mb", 32, "Largest message in MB.", lower_bound=1
)
_COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache",
    "~/.cache/vla_jax/compiled",
    "Folder of compiled programs, which must be your own; '' keeps none.",
)


def main(argv: list[str]) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    absl_logging.set_verbosity(absl_logging.WARNING)  # every connection otherwise
    logging.getLogger("vla_jax").setLevel(logging.INFO)
    try:
        asyncio.run(_serve())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


async def _serve() -> None:
    from vla_jax.client.layouts import make_layout
    from vla_jax.compile_cache import use_compile_cache
    from vla_jax.serving.policy import Policy, batch_sizes
    from vla_jax.serving.server import PolicyServer

    pairs = [pair.partition("=") for pair in _NAMES.value]
    if any(not sign for _, sign, _ in pairs):
        raise ValueError(f"--names={','.join(_NAMES.value)}: expected name=name.")
    names = {name: other for name, _, other in pairs}
    layout = make_layout(_LAYOUT.value, names, _GRIPPER.value)
    key = _api_key()
    if _COMPILE_CACHE.value:
        use_compile_cache(_COMPILE_CACHE.value)
    policy = Policy.load(
        _POLICY.value,
        program=_PROGRAM.value,
        batch_sizes=batch_sizes(_MAX_BATCH.value),
    )
    print(f"Compiling for batches of {policy.batch_sizes} ...", flush=True)
    difference = await asyncio.to_thread(policy.example_difference)
    print(f"The example's actions differ by {difference:.1e} from those recorded")
    server = PolicyServer(
        policy,
        layout=layout,
        layout_name=_LAYOUT.value,
        api_key=key,
        max_bytes=_MAX_MESSAGE_MB.value * 2**20,
        max_clients=_MAX_CLIENTS.value,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready() -> None:
        print(
            f"Serving {_POLICY.value} at ws://{_HOST.value}:{server.port}", flush=True
        )
        if key is None:
            print("Everybody who reaches this port may use it; see --api_key_file")

    await server.run(_HOST.value, _PORT.value, stop=stop, on_ready=ready)
    stats = server.stats()
    print(f"Stopped after {stats['requests']} requests: {stats['latency']}")


def _api_key() -> str | None:
    """The key; it is no flag, because everybody can read the flags of a process."""
    if _API_KEY_FILE.value is None:
        return os.environ.get("VLA_JAX_API_KEY") or None
    key = Path(_API_KEY_FILE.value).read_text().strip()
    if not key:
        raise ValueError(f"{_API_KEY_FILE.value} is empty; expected a key.")
    return key


if __name__ == "__main__":
    app.run(main)
