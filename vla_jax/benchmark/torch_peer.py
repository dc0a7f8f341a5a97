"""A config's policy in PyTorch, of the same shape, as something to time.

Only a process that measures PyTorch imports this file. Weights are PyTorch's own and
data made up; the step is forward, backward and fused AdamW, with the clipping and the
average that the config asks for, and without augmentation. Layouts are the ones that
PyTorch is fast with: channels last, `scaled_dot_product_attention`.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from vla_jax.benchmark import synthetic
from vla_jax.benchmark.peers import peer_of
from vla_jax.benchmark.torch_act import ACT
from vla_jax.benchmark.torch_blockwise import Blockwise

_MODULES: dict[str, Callable[..., nn.Module]] = {"act": ACT, "blockwise": Blockwise}


class Peer(NamedTuple):
    """As `vla_jax.benchmark.programs.Program`."""

    run: Callable[[int], None]
    facts: dict[str, float]


def open_peer(part: str, config: Mapping[str, Any], *, compiled: bool) -> Peer:
    """Builds a peer and, with `compiled`, compiles it.

    Args:
        part: "step" or "inference".
        config: an experiment that `peer_of` knows a peer for.
        compiled: with `torch.compile`.

    Raises:
        ValueError: a policy that has no peer.
    """
    torch.set_float32_matmul_precision("high")  # on GPUs as JAX does
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    metadata = synthetic.make_metadata(config["data"])
    model = make_model(config, metadata).to(device, memory_format=torch.channels_last)
    dtype = config["model"].get("compute", {}).get("dtype", "float32")
    mixed = torch.autocast(
        device, getattr(torch, dtype), enabled=dtype in ("bfloat16", "float16")
    )
    size = config["data"]["batch_size"] if part == "step" else 1
    batch = synthetic.make_batch(config["data"], metadata, batch_size=size)
    open_part = {"step": _open_step, "inference": _open_inference}[part]
    run, wait = open_part(config, model, batch, device, mixed, compiled)

    def timed(count: int) -> None:
        run(count)
        wait()

    start = time.perf_counter()
    timed(1)
    images = batch["observation"]["image"].values()
    return Peer(
        timed,
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "images": sum(image.shape[0] * image.shape[1] for image in images),
            "compile_s": time.perf_counter() - start,
        },
    )


def make_model(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> nn.Module:
    """The peer of a config, on the CPU.

    Raises:
        ValueError: a policy that has no peer.
    """
    kind = peer_of(config)
    if not kind:
        raise ValueError("There is no peer of this policy in PyTorch.")
    return _MODULES[kind](config, metadata)


def _open_step(config, model, batch, device, mixed, compiled):
    settings, train = config["optimizer"], config["train"]
    inputs, params = _to_torch(batch, device), list(model.parameters())
    optimizer = torch.optim.AdamW(
        params,
        lr=settings["learning_rate"],
        weight_decay=settings.get("weight_decay", 0.0),
        fused=True,
    )
    clip, decay = settings.get("clip_norm", 1.0), train.get("ema_decay", 0.0)
    average = [p.detach().clone() for p in params] if decay else []
    loss = torch.compile(model.loss) if compiled else model.loss
    model.train()

    def run(count: int) -> None:
        for _ in range(count):
            with mixed:
                value = loss(inputs)
            value.backward()
            if clip:
                nn.utils.clip_grad_norm_(params, clip)
            optimizer.step()
            optimizer.zero_grad()
            if average:
                with torch.no_grad():
                    torch._foreach_lerp_(average, params, 1 - decay)

    return run, _wait(device)


def _open_inference(config, model, batch, device, mixed, compiled):
    del config
    model.eval()
    sample = torch.compile(model.sample) if compiled else model.sample

    def run(count: int) -> None:
        for _ in range(count):
            with torch.inference_mode(), mixed:
                sample(_to_torch(batch, device)).float().cpu().numpy()

    return run, _wait(device)


def _to_torch(batch: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {
        key: _to_torch(value, device)
        if isinstance(value, dict)
        else torch.from_numpy(value).to(device)
        for key, value in batch.items()
    }


def _wait(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None
