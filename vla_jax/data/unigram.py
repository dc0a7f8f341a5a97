"""A SentencePiece unigram tokenizer in plain Python, for machines that only serve.

`data/text.py` trains and runs the real SentencePiece; a policy that leaves home takes
its pieces and scores along as JSON. The most likely segmentation of a text is found by
dynamic programming (Kudo, 2018, section 3.2); characters that no piece covers are
spelled in bytes of UTF-8.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space
_PENALTY = 10.0  # how much worse than the worst piece an unknown character is


def normalize_text(text: str) -> str:
    """Folds Unicode variants (NFKC), case, and runs of white space into one form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class UnigramTokenizer:
    """Turns instructions into the ids that `vla_jax.data.text.Tokenizer` gives.

    Attributes:
        vocab_size: number of token ids.
    """

    def __init__(self, pieces: Sequence[tuple[str, float]]):
        """Takes piece and score by id, the special ones and the 256 bytes among them.

        Raises:
            ValueError: the list is no such vocabulary.
        """
        self._pieces = [(str(piece), float(score)) for piece, score in pieces]
        self.vocab_size = len(self._pieces)
        ids = {piece: number for number, (piece, _) in enumerate(self._pieces)}
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        missing = [name for name in names if name not in ids]
        if missing or self.vocab_size <= END + 256:
            raise ValueError(
                f"A tokenizer of {self.vocab_size} pieces without {missing[:3]} and "
                f"{len(missing)} bytes in all has no byte fallback."
            )
        self._bytes = [ids[name] for name in names]
        special = {*range(END + 1), *self._bytes}
        self._scores = {
            piece: (score, number)
            for number, (piece, score) in enumerate(self._pieces)
            if number not in special
        }
        self._longest = max(map(len, self._scores), default=1)
        worst = min((score for score, _ in self._scores.values()), default=0.0)
        self._unknown = worst - _PENALTY

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "UnigramTokenizer":
        """Reads what `to_json` gave; raises ValueError where that cannot be it."""
        if content.get("type") != "unigram":
            raise ValueError(
                f"The tokenizer is of type {content.get('type')!r}; expected 'unigram'."
            )
        return cls(content["pieces"])

    def to_json(self) -> dict:
        """All of it, for a file."""
        return {"type": "unigram", "pieces": [list(pair) for pair in self._pieces]}

    def encode(
        self, texts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Tokenizer.encode`: ids int32 [n, l] and bool [n, l], True where real.

        Raises:
            ValueError: an instruction is longer than `length` tokens.
        """
        tokens = np.full((len(texts), length), PAD, np.int32)
        token_mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            ids = self._segment(normalize_text(text))
            if len(ids) > length and not truncate:
                raise ValueError(
                    f"The instruction {text[:80]!r} takes {len(ids)} tokens, but the "
                    f"policy reads only {length}; say it in fewer words."
                )
            ids = ids[:length]
            tokens[row, : len(ids)] = ids
            token_mask[row, : len(ids)] = True
        return tokens, token_mask

    def _segment(self, text: str) -> list[int]:
        """Ids of the most likely segmentation of a normalized text."""
        if not text:
            return []
        text = _SPACE + text.replace(" ", _SPACE)
        # For every prefix: the best score, where its last piece begins, and its id.
        best: list[tuple[float, int, int]] = [(0.0, 0, UNKNOWN)]
        best += [(-np.inf, 0, UNKNOWN)] * len(text)
        for start in range(len(text)):
            score = best[start][0]
            candidate = score + self._unknown
            if candidate > best[start + 1][0]:
                best[start + 1] = (candidate, start, UNKNOWN)
            for stop in range(start + 1, min(start + self._longest, len(text)) + 1):
                found = self._scores.get(text[start:stop])
                if found is None:
                    continue
                candidate = score + found[0]
                if candidate > best[stop][0]:
                    best[stop] = (candidate, start, found[1])
        ids: list[int] = []
        stop = len(text)
        while stop:
            _, start, number = best[stop]
            if number == UNKNOWN:
                spelled = [self._bytes[byte] for byte in text[start:stop].encode()]
            else:
                spelled = [number]
            ids[:0] = spelled
            stop = start
        return ids
