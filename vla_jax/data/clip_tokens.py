"""CLIP's byte-pair encoding, from the two files that its models come with.

Words are lower-cased and cut into pieces that were merged most often in CLIP's training
texts (Radford et al., 2021). The vocabulary is not shipped with this package: name the
folder that holds a model's `vocab.json` and `merges.txt`.
"""

import functools
import itertools
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_WORD_END = "</w>"


class CLIPTokenizer:
    """Instructions as CLIP's token ids and back; the interface is `Tokenizer`'s.

    Attributes:
        vocab_size: number of token ids.
        normalization: what is done to a text first, in words.
    """

    normalization = "NFC, lower case"

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[str]):
        """Takes what stands in the files; see `from_folder` and `from_bytes`.

        Args:
            vocabulary: piece to id.
            merges: pairs of pieces, "a b", the most frequent first.

        Raises:
            ValueError: a vocabulary without the marks of begin and end, without a byte,
                or without the result of a merge.
        """
        self._vocabulary = dict(vocabulary)
        self._merges = tuple(merges)
        self._ranks = {tuple(pair.split()): i for i, pair in enumerate(merges)}
        self._bytes = _byte_characters()
        pieces = {_BEGIN, _END, *self._bytes, *(c + _WORD_END for c in self._bytes)}
        pieces |= {"".join(pair) for pair in self._ranks}
        missing = sorted(pieces - set(self._vocabulary))
        if missing or any(len(pair) != 2 for pair in self._ranks):
            raise ValueError(
                f"vocab.json and merges.txt are not of one CLIP model: the vocabulary "
                f"lacks {missing[:8]} ({len(missing)} in all)."
            )
        self.vocab_size = max(self._vocabulary.values()) + 1
        self._pieces = {index: piece for piece, index in self._vocabulary.items()}
        self._encode_word = functools.lru_cache(maxsize=4096)(self._merge_word)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "CLIPTokenizer":
        """Reads `vocab.json` and `merges.txt`.

        Raises:
            ValueError: one of them is missing or damaged.
        """
        folder = Path(folder)
        try:
            vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
            lines = (folder / "merges.txt").read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder} has no readable vocab.json and merges.txt of a CLIP model: "
                f"{error}."
            ) from error
        # The first line may name the version; a merge can begin with "#" as well.
        lines = lines[1:] if lines[:1] and lines[0].startswith("#version") else lines
        return cls(vocabulary, [line for line in lines if line.strip()])

    @classmethod
    def from_bytes(cls, content: bytes) -> "CLIPTokenizer":
        """Restores what `to_bytes` returned.

        Raises:
            ValueError: other bytes.
        """
        try:
            fields = json.loads(content)
            return cls(fields["vocabulary"], fields["merges"])
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"This is no saved CLIP tokenizer: {error!r}.") from error

    def to_bytes(self) -> bytes:
        """Both files as one, for a checkpoint; the first byte is "{"."""
        fields = {"vocabulary": self._vocabulary, "merges": self._merges}
        return json.dumps(fields, ensure_ascii=False).encode("utf-8")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "CLIPTokenizer":
        """Reads what `to_json` gave; raises ValueError where that cannot be it."""
        if content.get("type") != "clip":
            raise ValueError(
                f"The tokenizer is of type {content.get('type')!r}; expected 'clip'."
            )
        return cls(content["vocabulary"], content["merges"])

    def to_json(self) -> dict:
        """All of it, for a bundle."""
        merges = list(self._merges)
        return {"type": "clip", "vocabulary": self._vocabulary, "merges": merges}

    def __reduce__(self):
        return CLIPTokenizer, (self._vocabulary, self._merges)

    def encode(
        self, texts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes instructions between marks of begin and end, padded on the right.

        Args:
            texts: n instructions; an empty one has no real token.
            length: l, the number of tokens that each gets; 77 is CLIP's own.
            truncate: cut longer instructions off, keeping the end mark.

        Returns:
            ids int32 [n, l], and bool [n, l], True where a token is real.

        Raises:
            ValueError: an instruction is longer than `length` tokens.
        """
        tokens = np.zeros((len(texts), length), np.int32)
        token_mask = np.zeros((len(texts), length), bool)
        begin, end = self._vocabulary[_BEGIN], self._vocabulary[_END]
        for row, text in enumerate(texts):
            words = list(_words(text))
            if not words:
                continue
            ids = [begin, *(i for word in words for i in self._encode_word(word)), end]
            if len(ids) > length and not truncate:
                raise ValueError(
                    f"The instruction '{text}' takes {len(ids)} tokens, but only "
                    f"{length} are allowed: raise data.text.length to {len(ids)}, or "
                    "set data.text.truncate=True to cut it off."
                )
            ids = ids[: length - 1] + [end] if len(ids) > length else ids
            tokens[row, : len(ids)] = ids
            token_mask[row, : len(ids)] = True
        return tokens, token_mask

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Returns the lower-cased text of ids [n, l], up to the end mark."""
        begin, end = self._vocabulary[_BEGIN], self._vocabulary[_END]
        back = {character: byte for byte, character in enumerate(self._bytes)}
        texts = []
        for row in np.atleast_2d(tokens).tolist():
            row = row[: row.index(end)] if end in row else []
            text = "".join(self._pieces[i] for i in row if i != begin)
            words = [
                bytes(back[c] for c in word) for word in text.split(_WORD_END) if word
            ]
            texts.append(" ".join(word.decode("utf-8", "replace") for word in words))
        return texts

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Ids of one word: its bytes, joined in the order of the merges."""
        pieces = [self._bytes[byte] for byte in word.encode("utf-8")]
        pieces[-1] += _WORD_END
        while len(pieces) > 1:
            pairs = itertools.pairwise(pieces)
            pair = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if pair not in self._ranks:
                break
            joined, index = [], 0
            while index < len(pieces):
                if tuple(pieces[index : index + 2]) == pair:
                    joined.append("".join(pair))
                    index += 2
                else:
                    joined.append(pieces[index])
                    index += 1
            pieces = joined
        return tuple(self._vocabulary[piece] for piece in pieces)


def _words(text: str) -> Iterator[str]:
    """Runs of letters, single digits, runs of other signs, and English contractions."""
    text = unicodedata.normalize("NFC", text).lower()
    index = 0
    while index < len(text):
        contraction = next(
            (end for end in _CONTRACTIONS if text.startswith(end, index)), ""
        )
        kind = _kind(text[index])
        stop = index + max(len(contraction), 1)
        if not contraction and kind in ("letter", "sign"):
            while stop < len(text) and _kind(text[stop]) == kind:
                stop += 1
        if kind != "space":
            yield text[index:stop]
        index = stop


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    category = unicodedata.category(character)[0]
    return {"L": "letter", "N": "number"}.get(category, "sign")


def _byte_characters() -> list[str]:
    """A printable character for each byte; those without one are moved behind 255."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(b if b in shown else 256 + hidden.index(b)) for b in range(256)]
