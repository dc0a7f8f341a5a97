"""Instructions as token ids: one small SentencePiece model, shipped with the package.

Text is brought into one form by `normalize_text`, in Python and so identical wherever
the policy runs; the model itself changes nothing. Words that training never saw are
spelled out in smaller pieces, down to single bytes of UTF-8, so that nothing a person
can type is unknown.
"""

from collections.abc import Iterable, Sequence
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
import sentencepiece

from vla_jax.data.unigram import BEGIN, END, PAD, UNKNOWN, normalize_text


class Tokenizer:
    """Turns instructions into token ids and back.

    It can be pickled, and saved with a checkpoint through `to_bytes`.

    Attributes:
        vocab_size: number of token ids.
    """

    def __init__(self, model: bytes):
        """Takes the serialized SentencePiece model; see `from_file` and `from_bytes`.

        Raises:
          ValueError: bytes that are no model, or a model without byte fallback or with
            other special ids than this package uses.
        """
        self._model = bytes(model)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except RuntimeError as error:
            raise ValueError(
                f"These {len(self._model)} bytes are not a SentencePiece model."
            ) from error
        special = (
            self._processor.pad_id(),
            self._processor.unk_id(),
            self._processor.bos_id(),
            self._processor.eos_id(),
        )
        if special != (PAD, UNKNOWN, BEGIN, END):
            raise ValueError(
                f"The tokenizer's ids of padding, unknown, begin and end are {special},"
                f" expected {(PAD, UNKNOWN, BEGIN, END)}; train it with "
                "launch/train_tokenizer.py."
            )
        if self._processor.piece_to_id("<0x00>") == UNKNOWN:
            raise ValueError(
                "The tokenizer has no byte fallback, so it would not know every "
                "instruction; train it with launch/train_tokenizer.py."
            )
        self.vocab_size = self._processor.vocab_size()

    @classmethod
    def from_bytes(cls, model: bytes) -> "Tokenizer":
        """Restores what `to_bytes` returned."""
        return cls(model)

    @classmethod
    def from_file(cls, path: str | Path = "") -> "Tokenizer":
        """Loads a model file; without a path, the model shipped with the package."""
        if not path:
            assets = resources.files("vla_jax.data") / "assets"
            return cls((assets / "instructions.model").read_bytes())
        if not Path(path).is_file():
            raise ValueError(
                f"There is no tokenizer at '{path}'; leave data.text.model empty for "
                "the one shipped with the package."
            )
        return cls(Path(path).read_bytes())

    def to_bytes(self) -> bytes:
        """The serialized model, for a checkpoint."""
        return self._model

    def pieces(self) -> list[tuple[str, float]]:
        """Piece and score of every id, for `vla_jax.data.unigram`."""
        return [
            (self._processor.id_to_piece(i), self._processor.get_score(i))
            for i in range(self.vocab_size)
        ]

    def __reduce__(self):
        return Tokenizer, (self._model,)

    def encode(
        self, texts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes instructions, padded on the right.

        Args:
          texts: n instructions; an empty one has no real token.
          length: l, the number of tokens that each gets.
          truncate: cut longer instructions off instead of refusing them.

        Returns:
          ids int32 [n, l], and bool [n, l], True where a token is real.

        Raises:
          ValueError: an instruction is longer than `length` tokens.
        """
        tokens = np.full((len(texts), length), PAD, np.int32)
        token_mask = np.zeros((len(texts), length), bool)
        normal = [normalize_text(text) for text in texts]
        for row, ids in enumerate(self._processor.encode(normal, num_threads=1)):
            if len(ids) > length and not truncate:
                raise ValueError(
                    f"The instruction '{texts[row]}' takes {len(ids)} tokens, but "
                    f"only {length} are allowed: raise data.text.length to "
                    f"{len(ids)}, or set data.text.truncate=True to cut it off."
                )
            ids = ids[:length]
            tokens[row, : len(ids)] = ids
            token_mask[row, : len(ids)] = True
        return tokens, token_mask

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Returns the normalized text of ids [n, l], without special tokens."""
        rows = np.atleast_2d(tokens).tolist()
        return [
            self._processor.decode([i for i in row if i not in (PAD, BEGIN, END)])
            for row in rows
        ]


def choose_phrasings(chance: np.ndarray, num_phrasings: np.ndarray) -> np.ndarray:
    """Which of the phrasings of its instruction each sample gets, all as likely.

    Args:
        chance: uint64 [b], random bits.
        num_phrasings: int [b], phrasings of each sample; may be 0.

    Returns:
        int64 [b] in 0 .. num_phrasings - 1, and 0 where there is none.
    """
    choice = chance % np.maximum(num_phrasings, 1).astype(np.uint64)
    return choice.astype(np.int64)


def keep_instructions(chance: np.ndarray, dropout: float) -> np.ndarray:
    """Which samples keep their instruction, for policies that also act without one.

    Args:
        chance: uint64 [b], random bits.
        dropout: probability that a sample loses its instruction.

    Returns:
        bool [b].
    """
    return (chance >> np.uint64(11)) * 2.0**-53 >= dropout  # uniform in [0, 1)


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a unigram model with byte fallback; the same sentences give the same one.

    Args:
      sentences: instructions, not yet normalized.
      vocab_size: most token ids to use, among them 4 special ones and 256 bytes.

    Raises:
      ValueError: too few ids for the bytes and the characters of the sentences, or no
        sentences.
    """
    sentences = [text for text in map(normalize_text, sentences) if text]
    if not sentences:
        raise ValueError("A tokenizer cannot be trained without any sentence.")
    # The trainer proposes as a token only what occurs in two different words. Each word
    # with a period is such a second one, so that whole words can become tokens.
    words = sorted({word for text in sentences for word in text.split()})
    model = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences + [f"{word}." for word in words]),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,
            required_chars="abcdefghijklmnopqrstuvwxyz0123456789.,?!'-",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_digits=True,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"A tokenizer with {vocab_size} ids cannot be trained on these "
            f"{len(sentences)} sentences; use more ids. ({error})"
        ) from error
    return Tokenizer(model.getvalue())
