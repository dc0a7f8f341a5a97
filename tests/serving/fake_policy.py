"""A policy without a model, whose actions tell what it was given, and its server."""

import asyncio
import contextlib
import threading

import numpy as np

from vla_jax.serving.policy import Policy
from vla_jax.serving.schema import Schema
from vla_jax.serving.server import PolicyServer

SCHEMA = Schema(
    dataset="robot",
    cameras=("primary", "wrist"),
    image_size=(4, 4),
    window=1,
    chunk=4,
    proprio_dim=2,
    action=("absolute", "absolute", "absolute", "absolute", "gripper"),
    control_hz=10.0,
    text_length=3,
    text_truncate=False,
)


class Words:
    """A tokenizer whose ids are the lengths of the words."""

    def encode(self, texts, length, *, truncate=False):
        del truncate
        tokens = np.zeros((len(texts), length), np.int32)
        for row, text in enumerate(texts):
            ids = [len(word) for word in text.split()]
            if len(ids) > length:
                raise ValueError(f"{text!r} has more than {length} words.")
            tokens[row, : len(ids)] = ids
        return tokens, tokens > 0


def tell(inputs):
    """Actions: proprio + step, real frames, seed, call, and a gripper that is open."""
    chunk = np.arange(SCHEMA.chunk, dtype=np.float32)
    rows = len(inputs["seed"])
    actions = np.ones((rows, SCHEMA.chunk, 5), np.float32)
    actions[..., 0] = inputs["proprio"][:, -1, :1] + chunk
    actions[..., 1] = inputs["frame_mask"].sum(1)[:, None]
    actions[..., 2] = inputs["seed"][:, None]
    actions[..., 3] = inputs["call"][:, None]
    return actions


def make_policy(predict=tell, *, schema=SCHEMA, batch_sizes=(1, 4), **options):
    return Policy(predict, schema, Words(), batch_sizes=batch_sizes, **options)


def observe(value=0.0, **changes):
    """A message of this library's layout."""
    image = np.full((4, 4, 3), 7, np.uint8)
    return {
        "image/primary": image,
        "image/wrist": image,
        "proprio": np.array([value, 0.0], np.float32),
        "prompt": "open it",
        **changes,
    }


@contextlib.contextmanager
def serving(policy, **options):
    """Runs a server in a thread; yields it and its address."""
    server = PolicyServer(policy, **options)
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    def run():
        loop.run_until_complete(
            server.run("127.0.0.1", 0, stop=stop, on_ready=ready.set)
        )
        loop.close()

    thread = threading.Thread(target=run, name="fake-policy-server")
    thread.start()
    try:
        assert ready.wait(60)
        yield server, f"ws://127.0.0.1:{server.port}"
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
