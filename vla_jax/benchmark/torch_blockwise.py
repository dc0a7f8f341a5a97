"""A policy with a block-wise transformer trunk from `torch.nn` parts.

With the tokens "grid" and a stem of patches alone it is a vision transformer that also
reads words and proprio.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Blockwise(nn.Module):
    """Convolutions, words, pre-norm transformer, readouts and a perceptron."""

    def __init__(self, config: Mapping[str, Any], metadata: Mapping[str, Any]):
        """Takes sizes from an experiment that `peer_of` calls "blockwise"."""
        super().__init__()
        model, data = config["model"], config["data"]
        trunk, head, text = model["trunk"], model["head"], model["text"]
        width, self.cameras = trunk["width"], sorted(data["cameras"])
        side = {c: _pick(model["image"], c) for c in self.cameras}
        shared = "shared" in model["image"]
        names = ["shared"] if shared else self.cameras
        self.image = nn.ModuleDict({n: Conv(model["image"][n]) for n in names})
        names = ["shared"] if "shared" in model["tokens"] else self.cameras
        cells = _cells(data["image_size"], side[self.cameras[0]]) if side else 0
        self.tokens = nn.ModuleDict(
            {
                n: Tokens(model["tokens"][n], _channels(side, n, self.cameras), cells)
                for n in names
            }
        )
        length = data["text"]["length"]
        self.embed = nn.Embedding(text["vocab_size"], text["width"])
        self.position = nn.Parameter(
            0.02 * torch.randn(text.get("length", 32), text["width"])
        )
        self.proprio = nn.Linear(metadata["proprio_dim"], width)
        sizes = {"language": (text["width"], length), "proprio": (width, 1)}
        for camera in self.cameras:
            token = self.tokens[_name(self.tokens, camera)]
            sizes[camera] = (token.width, token.count)
        self.project = nn.ModuleDict(
            {n: nn.Linear(size, width) for n, (size, _) in sizes.items()}
        )
        self.kind = nn.ParameterDict(
            {
                n: nn.Parameter(0.02 * torch.randn(count, width))
                for n, (_, count) in sizes.items()
            }
        )
        readouts = trunk.get("num_readouts", 1)
        self.readout = nn.Parameter(0.02 * torch.randn(readouts, width))
        self.layers = nn.ModuleList(Layer(trunk) for _ in range(trunk["num_layers"]))
        self.norm = nn.LayerNorm(width)
        hidden = head.get("width", 256)
        self.chunk, self.action_dim = head["chunk"], head["action_dim"]
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU("tanh"),
            nn.Linear(hidden, self.chunk * self.action_dim),
        )
        count = sum(n for _, n in sizes.values()) + readouts
        allowed = torch.ones(count, count, dtype=torch.bool)
        allowed[:length, length:] = False  # words read words
        allowed[:-readouts, -readouts:] = False  # readouts are read by each other
        self.register_buffer("allowed", allowed)

    def loss(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Mean error over real actions."""
        mask = batch["action_mask"]
        error = (self.sample(batch) - batch["action"]).abs()
        return torch.where(mask, error, 0.0).sum() / mask.sum().clamp(min=1)

    def sample(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """A chunk `[b c a]`."""
        observation, task = batch["observation"], batch["task"]
        real = task["token_mask"]
        words = self.embed(task["tokens"]) + self.position[: real.shape[1]]
        groups = {"language": torch.where(real[..., None], words, 0.0)}
        for camera in self.cameras:
            pixels = observation["image"][camera][:, -1].permute(0, 3, 1, 2)
            encode = self.image[_name(self.image, camera)]
            features = encode(pixels.float() / 127.5 - 1)
            groups[camera] = self.tokens[_name(self.tokens, camera)](features)
        groups["proprio"] = self.proprio(observation["proprio"])
        x = torch.cat(
            [
                *(self.project[n](x) + self.kind[n] for n, x in groups.items()),
                self.readout.expand(len(real), -1, -1),
            ],
            1,
        )
        others = real.new_ones(len(real), x.shape[1] - real.shape[1])
        mask = self.allowed & torch.cat([real, others], 1)[:, None]
        for layer in self.layers:
            x = layer(x, mask[:, None])
        x = self.norm(x[:, -len(self.readout) :]).mean(1)
        return self.head(x).unflatten(-1, (self.chunk, self.action_dim))


class Layer(nn.Module):
    """A pre-norm layer."""

    def __init__(self, sizes: Mapping[str, Any]):
        super().__init__()
        width, self.num_heads = sizes["width"], sizes["num_heads"]
        self.rate = sizes.get("dropout", 0.0)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, sizes["mlp_width"])
        self.mlp_out = nn.Linear(sizes["mlp_width"], width)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, mask):
        """`x [b n d]`, `mask [b 1 n n]`, True where a token may read."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b h n e] each
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self._drop(self.out(y.transpose(1, 2).flatten(2)))
        y = functional.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")
        return x + self._drop(self.mlp_out(self._drop(y)))

    def _drop(self, x):
        return functional.dropout(x, self.rate, self.training)


class Conv(nn.Module):
    """Patches, then 3x3 convolutions; a norm over channels before the last ReLU."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__()
        widths, patch = fields["widths"], fields["patch"]
        self.stages = nn.ModuleList([nn.Conv2d(3, widths[0], patch, patch)])
        for before, width, stride in zip(
            widths, widths[1:], fields["strides"], strict=False
        ):
            self.stages.append(nn.Conv2d(before, width, 3, stride, 1))
        self.norm = nn.LayerNorm(widths[-1])

    def forward(self, x):
        """Features `[b h w d]` of images `[b 3 h w]`."""
        for stage in self.stages[:-1]:
            x = torch.relu(stage(x))
        return torch.relu(self.norm(self.stages[-1](x).permute(0, 2, 3, 1)))


class Tokens(nn.Module):
    """One token per cell, or a few that read all cells."""

    def __init__(self, fields: Mapping[str, Any], channels: int, cells: int):
        super().__init__()
        self.width, self.is_grid = fields["width"], fields["name"] == "grid"
        if self.is_grid:
            self.count = cells
            self.read = nn.Linear(channels, self.width)
            self.position = nn.Parameter(0.02 * torch.randn(cells, self.width))
            return
        self.count, kept = fields.get("num_tokens", 2), fields.get("channels", 16)
        self.reduce = nn.Linear(channels, kept)
        self.read = nn.Linear(cells * kept, self.count * self.width)

    def forward(self, x):
        """Tokens `[b n d]` of features `[b h w d]`."""
        if self.is_grid:
            return self.read(x.flatten(1, 2)) + self.position
        x = self.read(torch.relu(self.reduce(x)).flatten(1))
        return x.unflatten(-1, (self.count, self.width))


def _name(modules: nn.ModuleDict, camera: str) -> str:
    return camera if camera in modules else "shared"


def _pick(parts: Mapping[str, Any], camera: str) -> Mapping[str, Any]:
    return parts.get(camera) or parts["shared"]


def _channels(side: Mapping[str, Any], name: str, cameras: list[str]) -> int:
    return side[cameras[0] if name == "shared" else name]["widths"][-1]


def _cells(size: tuple[int, int], fields: Mapping[str, Any]) -> int:
    """Cells of the last stage."""
    height, width = (length // fields["patch"] for length in size)
    for stride in fields["strides"]:
        height, width = -(-height // stride), -(-width // stride)
    return height * width
