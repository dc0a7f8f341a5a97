"""Trains the instruction tokenizer.

The model in vla_jax/data/assets was made by running this script without flags. With
--input it learns from your own instructions instead, one per line:

    python launch/train_tokenizer.py --input=instructions.txt --out=my.model

and a training run uses it with --config.data.text.model=my.model.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from vla_jax.data.instruction_corpus import make_corpus
from vla_jax.data.text import train_tokenizer

_ASSET = Path(__file__).parents[1] / "vla_jax" / "data" / "assets"

_INPUT = flags.DEFINE_string(
    "input", "", "text file with one instruction per line; empty: the built-in corpus"
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size", 2048, "token ids at most, among them 4 special ones and 256 bytes"
)
_NUM_SENTENCES = flags.DEFINE_integer(
    "num_sentences", 40_000, "size of the built-in corpus"
)
_OUT = flags.DEFINE_string("out", str(_ASSET / "instructions.model"), "model to write")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    if _INPUT.value:
        sentences = Path(_INPUT.value).read_text(encoding="utf-8").splitlines()
    else:
        sentences = list(make_corpus(_NUM_SENTENCES.value))
    tokenizer = train_tokenizer(sentences, _VOCAB_SIZE.value)
    model = tokenizer.to_bytes()
    Path(_OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(_OUT.value).write_bytes(model)
    _, mask = tokenizer.encode(sentences[:10_000], 256, truncate=True)
    lengths = mask.sum(axis=1)
    print(
        f"{_OUT.value}: {tokenizer.vocab_size} ids, {len(model) / 1024:.1f} KB. "
        f"Instructions take {np.mean(lengths):.1f} tokens on average, "
        f"{np.quantile(lengths, 0.99):.0f} in 99 of 100 cases, "
        f"{lengths.max()} at most."
    )


if __name__ == "__main__":
    app.run(main)
