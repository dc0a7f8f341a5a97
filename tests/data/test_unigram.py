import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data.text import Tokenizer
from vla_jax.data.unigram import UnigramTokenizer

REAL = Tokenizer.from_file("")
COPY = UnigramTokenizer.from_json(
    json.loads(json.dumps(UnigramTokenizer(REAL.pieces()).to_json()))
)
WORDS = st.sampled_from(
    ["open", "the", "Drawer", "zzqx", "12", "ß", "引き出し", "🙂", "<s>", "▁", "don't."]
)


@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=8).map(" ".join)))
@settings(max_examples=300)
def test_the_ids_are_those_of_sentencepiece(text):
    for expected, found in zip(
        REAL.encode([text], 400), COPY.encode([text], 400), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_padding_truncation_and_length_are_those_of_sentencepiece():
    texts = ["open the drawer", ""]
    for expected, found in zip(
        REAL.encode(texts, 2, truncate=True),
        COPY.encode(texts, 2, truncate=True),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="but the policy reads only 1"):
        COPY.encode(["open the drawer"], 1)


def test_what_is_no_vocabulary_is_refused():
    with pytest.raises(ValueError, match="no byte fallback"):
        UnigramTokenizer([("a", 0.0)] * 300)
    with pytest.raises(ValueError, match="type 'bpe'"):
        UnigramTokenizer.from_json({"type": "bpe"})
