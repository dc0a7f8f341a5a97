"""ACT from torch.nn parts, and our parameters copied into it, for parity tests."""

import numpy as np
import torch
from torch import nn

from vla_jax.models.post_norm import sine_positions_1d, sine_positions_2d


class Encoder(nn.Module):
    def __init__(self, d, heads, hidden):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.mlp_in, self.mlp_out = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x, position, padding=None):
        q = x + position
        y = self.attention(q, q, x, key_padding_mask=padding)[0]
        x = self.attention_norm(x + y)
        return self.mlp_norm(x + self.mlp_out(torch.relu(self.mlp_in(x))))


class Decoder(Encoder):
    def __init__(self, d, heads, hidden):
        super().__init__(d, heads, hidden)
        self.cross_attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.cross_norm = nn.LayerNorm(d)

    def forward(self, x, query, memory, position):
        q = x + query
        x = self.attention_norm(x + self.attention(q, q, x)[0])
        y = self.cross_attention(x + query, memory + position, memory)[0]
        x = self.cross_norm(x + y)
        return self.mlp_norm(x + self.mlp_out(torch.relu(self.mlp_in(x))))


class ACT(nn.Module):
    """The spec read once more, for one camera whose features are given."""

    def __init__(self, *, d, heads, hidden, layers, chunk, action, proprio, latent, f):
        super().__init__()
        self.style = nn.ModuleList([Encoder(d, heads, hidden) for _ in range(layers)])
        self.cls = nn.Parameter(torch.zeros(d))
        self.style_proprio, self.style_action = (
            nn.Linear(proprio, d),
            nn.Linear(action, d),
        )
        self.moments, self.latent = nn.Linear(d, 2 * latent), nn.Linear(latent, d)
        self.proprio = nn.Linear(proprio, d)
        self.image = nn.Conv2d(f, d, 1)
        self.position = nn.Parameter(torch.zeros(2, d))  # of latent and proprio
        self.encoder = nn.ModuleList([Encoder(d, heads, hidden) for _ in range(layers)])
        self.decoder = Decoder(d, heads, hidden)
        self.query = nn.Parameter(torch.zeros(chunk, d))
        self.norm = nn.LayerNorm(d)
        self.action = nn.Linear(d, action)
        self.d = d

    def forward(self, features, proprio, actions, real, noise):
        """Chunk, mean and log variance; `features [b f h w]`, `real [b c]`."""
        b, c = real.shape
        cls = self.cls.expand(b, 1, -1)
        x = [cls, self.style_proprio(proprio)[:, None], self.style_action(actions)]
        x = torch.cat(x, 1)
        position = torch.from_numpy(sine_positions_1d(2 + c, self.d))
        padding = torch.cat([torch.zeros(b, 2, dtype=torch.bool), ~real], 1)
        for layer in self.style:
            x = layer(x, position, padding)
        mean, log_variance = self.moments(x[:, 0]).chunk(2, -1)
        latent = self.latent(mean + torch.exp(log_variance / 2) * noise)
        image = self.image(features)
        place = sine_positions_2d(image.shape[2], image.shape[3], self.d)
        place = torch.from_numpy(place.reshape(-1, self.d))
        position = torch.cat([self.position, place])
        memory = torch.cat(
            [
                latent[:, None],
                self.proprio(proprio)[:, None],
                image.flatten(2).transpose(1, 2),
            ],
            1,
        )
        for layer in self.encoder:
            memory = layer(memory, position)
        target = torch.zeros(b, c, self.d)
        x = self.decoder(target, self.query, memory, position)
        return self.action(self.norm(x)), mean, log_variance


def correspondence(params, layers):
    """Torch parameter name -> our array of the same numbers, in torch's layout."""
    pairs = {}

    def linear(name, place):
        pairs[f"{name}.weight"] = place["kernel"].T
        pairs[f"{name}.bias"] = place["bias"]

    def norm(name, place):
        pairs[f"{name}.weight"], pairs[f"{name}.bias"] = place["scale"], place["bias"]

    def attention(name, place):
        parts = [place[key] for key in "qkv"]
        pairs[f"{name}.in_proj_weight"] = np.concatenate([p["kernel"].T for p in parts])
        pairs[f"{name}.in_proj_bias"] = np.concatenate([p["bias"] for p in parts])
        linear(f"{name}.out_proj", place["out"])

    def layer(name, place):
        for key in ("attention", "cross_attention"):
            if key in place:
                attention(f"{name}.{key}", place[key])
        for key in ("attention_norm", "cross_norm", "mlp_norm"):
            if key in place:
                norm(f"{name}.{key}", place[key])
        linear(f"{name}.mlp_in", place["mlp_in"])
        linear(f"{name}.mlp_out", place["mlp_out"])

    style, trunk = params["latent"], params["trunk"]
    for index in range(layers):
        layer(f"style.{index}", style["encoder"][f"layer_{index}"])
        layer(f"encoder.{index}", trunk["encoder"][f"layer_{index}"])
    layer("decoder", trunk["decoder_0"])
    norm("norm", trunk["norm"])
    pairs["cls"] = style["cls_token"]
    linear("style_proprio", style["proprio_project"]["linear"])
    linear("style_action", style["action_project"]["linear"])
    linear("moments", style["moments_project"]["linear"])
    linear("latent", style["latent_project"]["linear"])
    linear("proprio", params["proprio"]["linear"])
    linear("action", params["head"]["action"])
    linear("image", params["tokens_shared"]["project"]["linear"])
    pairs["image.weight"] = pairs["image.weight"][..., None, None]
    pairs["query"] = trunk["readout_position"]
    positions = [trunk["latent_position"], trunk["proprio_position"]]
    pairs["position"] = np.concatenate(positions)
    return {name: np.asarray(value) for name, value in pairs.items()}
