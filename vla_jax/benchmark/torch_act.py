"""ACT (Zhao et al., 2023) from `torch.nn` parts, of the shape that a config gives."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla_jax.models.post_norm import sine_positions_1d, sine_positions_2d
from vla_jax.models.resnet import LEVELS, STAGES

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ACT(nn.Module):
    """ResNet, style variable, encoder and decoder; see `vla_jax/models/act.py`."""

    def __init__(self, config: Mapping[str, Any], metadata: Mapping[str, Any]):
        """Takes sizes from an experiment that `peer_of` calls "act"."""
        super().__init__()
        model = config["model"]
        trunk, latent, image = model["trunk"], model["latent"], model["image"]["shared"]
        width, action_dim = trunk["width"], metadata["action_dim"]
        proprio_dim = metadata["proprio_dim"]
        self.backbone = ResNet(
            image.get("depth", 18),
            image.get("norm", "frozen"),
            image.get("width", 64),
            image.get("last", "layer4"),
        )
        self.image = nn.Linear(self.backbone.out_width, width)
        self.proprio = nn.Linear(proprio_dim, width)
        # The style variable.
        self.beta = latent.get("beta", 10.0)
        self.cls = nn.Parameter(torch.randn(width))
        self.style_proprio = nn.Linear(proprio_dim, width)
        self.style_action = nn.Linear(action_dim, width)
        self.style = nn.ModuleList(Encoder(latent) for _ in range(latent["num_layers"]))
        self.moments = nn.Linear(width, 2 * latent["latent_dim"])
        self.latent = nn.Linear(latent["latent_dim"], width)
        # The trunk and the head.
        self.position = nn.Parameter(torch.randn(2, width))  # of latent and proprio
        self.encoder = nn.ModuleList(Encoder(trunk) for _ in range(trunk["num_layers"]))
        self.decoder = nn.ModuleList(
            Decoder(trunk) for _ in range(trunk.get("num_decoder_layers", 1))
        )
        self.query = nn.Parameter(torch.randn(trunk["num_readouts"], width))
        self.norm = nn.LayerNorm(width)
        self.action = nn.Linear(width, action_dim)
        chunk = config["data"]["chunk"]
        self.register_buffer(
            "style_place", torch.from_numpy(sine_positions_1d(2 + chunk, width))
        )
        places = _places(config, image.get("last", "layer4"), width)
        self.register_buffer("places", places)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])

    def loss(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Mean error of the chunk and the weighted divergence."""
        action, mask = batch["action"], batch["action_mask"]
        proprio = batch["observation"]["proprio"][:, -1]
        real = mask.any(-1)
        x = torch.cat(
            [
                self.cls.expand(len(action), 1, -1),
                self.style_proprio(proprio)[:, None],
                self.style_action(torch.where(mask, action, 0.0)),
            ],
            1,
        )
        padding = torch.cat([torch.zeros_like(real[:, :2]), ~real], 1)
        for layer in self.style:
            x = layer(x, self.style_place, padding)
        mean, log_variance = self.moments(x[:, 0]).float().chunk(2, -1)
        latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
        error = (self._chunk(batch, latent) - action).abs()
        return torch.where(mask, error, 0.0).mean() + self.beta * divergence.mean()

    def sample(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """A chunk `[b c a]`, the latent at the mean of its prior."""
        size = len(batch["observation"]["proprio"])
        latent = self.latent.weight.new_zeros(size, self.latent.in_features)
        return self._chunk(batch, latent)

    def _chunk(self, batch: Mapping[str, Any], latent: torch.Tensor) -> torch.Tensor:
        observation = batch["observation"]
        tokens = [
            self.latent(latent)[:, None],
            self.proprio(observation["proprio"]),
        ]
        for camera in sorted(observation["image"]):
            pixels = observation["image"][camera][:, -1].permute(0, 3, 1, 2)
            features = self.backbone((pixels.float() / 255 - self.mean) / self.std)
            tokens.append(self.image(features.permute(0, 2, 3, 1).flatten(1, 2)))
        memory = torch.cat(tokens, 1)
        cameras = len(observation["image"])
        position = torch.cat([self.position, self.places.repeat(cameras, 1)])
        for layer in self.encoder:
            memory = layer(memory, position)
        x = torch.zeros_like(self.query).expand(len(memory), -1, -1)
        for layer in self.decoder:
            x = layer(x, self.query, memory, position)
        return self.action(self.norm(x))


class Encoder(nn.Module):
    """A post-norm layer whose queries and keys get positions."""

    def __init__(self, sizes: Mapping[str, Any]):
        super().__init__()
        width, self.rate = sizes["width"], sizes.get("dropout", 0.1)
        self.attention = self._attention(sizes)
        self.mlp_in = nn.Linear(width, sizes["mlp_width"])
        self.mlp_out = nn.Linear(sizes["mlp_width"], width)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def _attention(self, sizes: Mapping[str, Any]) -> nn.MultiheadAttention:
        return nn.MultiheadAttention(
            sizes["width"], sizes["num_heads"], self.rate, batch_first=True
        )

    def forward(self, x, position, padding=None):
        """`x [b n d]`, `position [n d]`, `padding [b n]`, True where nothing is."""
        q = x + position
        x = self.attention_norm(
            x + self.drop(_attend(self.attention, q, q, x, padding))
        )
        return self._perceptron(x)

    def drop(self, x):
        """Dropout at the layer's rate."""
        return functional.dropout(x, self.rate, self.training)

    def _perceptron(self, x):
        y = self.mlp_out(self.drop(torch.relu(self.mlp_in(x))))
        return self.mlp_norm(x + self.drop(y))


class Decoder(Encoder):
    """A layer that also reads a memory."""

    def __init__(self, sizes: Mapping[str, Any]):
        super().__init__(sizes)
        self.cross_attention = self._attention(sizes)
        self.cross_norm = nn.LayerNorm(sizes["width"])

    def forward(self, x, query, memory, position):
        """`x [b r d]`, `query [r d]`, `memory [b n d]`, `position [n d]`."""
        q = x + query
        x = self.attention_norm(x + self.drop(_attend(self.attention, q, q, x)))
        read = _attend(self.cross_attention, x + query, memory + position, memory)
        return self._perceptron(self.cross_norm(x + self.drop(read)))


class ResNet(nn.Module):
    """ResNet-18 or 34 up to a level, with frozen or group norms."""

    def __init__(self, depth: int, norm: str, width: int, last: str):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm = _norm(norm, width)
        blocks, self.out_width = [], width
        for number in range(LEVELS.index(last)):
            size = width * 2**number
            for index in range(STAGES[depth][number]):
                stride = 2 if number and not index else 1
                blocks.append(Basic(self.out_width, size, stride, norm))
                self.out_width = size
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        """Features `[b d h w]` of images `[b 3 h w]`."""
        x = torch.relu(self.norm(self.stem(x)))
        return self.blocks(functional.max_pool2d(x, 3, 2, 1))


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = _norm(norm, width), _norm(norm, width)
        self.shortcut = nn.Identity()
        if stride > 1 or before != width:
            project = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, _norm(norm, width))

    def forward(self, x):
        """`[b d h w]`."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Frozen(nn.Module):
    """Batch normalization with everything constant."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("factor", torch.ones(width, 1, 1))
        self.register_buffer("shift", torch.zeros(width, 1, 1))

    def forward(self, x):
        """`[b d h w]`."""
        return x * self.factor + self.shift


def _norm(kind: str, width: int) -> nn.Module:
    return Frozen(width) if kind == "frozen" else nn.GroupNorm(width // 16, width)


def _attend(attention, query, key, value, padding=None):
    return attention(query, key, value, key_padding_mask=padding, need_weights=False)[0]


def _places(config: Mapping[str, Any], level: str, width: int) -> torch.Tensor:
    """Positions of the cells of a feature level, `[h w d]` in one run."""
    stride = 4 * 2 ** max(LEVELS.index(level) - 1, 0)
    height, breadth = (-(-side // stride) for side in config["data"]["image_size"])
    places = sine_positions_2d(height, breadth, width)
    return torch.from_numpy(places.reshape(-1, width))
