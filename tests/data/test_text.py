"""Instructions become tokens: every text known, one form, one small model."""

import pickle
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_jax.data.instruction_corpus import META_WORLD, make_corpus
from vla_jax.data.sampler import hash_numbers
from vla_jax.data.text import (
    PAD,
    UNKNOWN,
    Tokenizer,
    choose_phrasings,
    keep_instructions,
    normalize_text,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file()


def test_shipped_model_is_small():
    model = resources.files("vla_jax.data") / "assets" / "instructions.model"
    assert len(model.read_bytes()) < 100 * 1024


def test_shipped_model_comes_from_the_shipped_corpus(tokenizer):
    again = train_tokenizer(make_corpus(40_000), 2048)
    texts = list(make_corpus(200, seed=1))
    np.testing.assert_array_equal(
        again.encode(texts, 64)[0], tokenizer.encode(texts, 64)[0]
    )


@pytest.mark.parametrize(
    "text",
    [
        "put the 🤖 on the 🟥",
        "把苹果放进碗里",
        "öffne die größte Schublade",
        "a\x00b",
        "𝔘𝔫𝔦",
    ],
)
def test_no_instruction_is_unknown(tokenizer, text):
    tokens, mask = tokenizer.encode([text], 64)
    assert UNKNOWN not in tokens
    assert tokenizer.decode(tokens) == [normalize_text(text)]
    assert mask.any()


@given(text=st.text(max_size=30))
def test_no_text_at_all_is_unknown(text):
    tokenizer = Tokenizer.from_file()
    tokens, mask = tokenizer.encode([text], 400)
    assert UNKNOWN not in tokens[mask]
    np.testing.assert_array_equal(mask[0], np.arange(400) < mask.sum())
    assert np.all(tokens[~mask] == PAD)
    # The model writes a space as "▁"; nothing else may change on the way.
    assert tokenizer.decode(tokens)[0].strip() == (
        normalize_text(text).replace("▁", " ").strip()
    )


def test_case_width_and_spaces_do_not_matter(tokenizer):
    texts = ["Open  the\tDRAWER ", "open the drawer", "ｏｐｅｎ the drawer"]
    tokens, _ = tokenizer.encode(texts, 8)
    np.testing.assert_array_equal(tokens[0], tokens[1])
    np.testing.assert_array_equal(tokens[2], tokens[1])


def test_padding_is_on_the_right_and_masked(tokenizer):
    tokens, mask = tokenizer.encode(["open the drawer", ""], 5)
    assert tokens.dtype == np.int32 and tokens.shape == (2, 5)
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(tokens[~mask], [PAD] * 7)
    assert len(set(tokens[0, :3].tolist())) == 3


def test_every_meta_world_task_has_an_instruction_of_few_tokens(tokenizer):
    assert len(META_WORLD) == len(set(META_WORLD)) == 50
    _, mask = tokenizer.encode(META_WORLD, 16)
    assert mask.sum(axis=1).mean() < 8


def test_long_instruction_is_refused_with_the_length_it_needs(tokenizer):
    with pytest.raises(ValueError, match=r"'open the drawer' takes 3 tokens.*length"):
        tokenizer.encode(["open the drawer"], 2)
    tokens, mask = tokenizer.encode(["open the drawer"], 2, truncate=True)
    assert tokenizer.decode(tokens) == ["open the"] and mask.all()


def test_saved_and_pickled_tokenizers_encode_alike(tokenizer, tmp_path):
    (tmp_path / "copy.model").write_bytes(tokenizer.to_bytes())
    expected = tokenizer.encode(["push the red puck"], 8)[0]
    for copy in (
        Tokenizer.from_bytes(tokenizer.to_bytes()),
        Tokenizer.from_file(tmp_path / "copy.model"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        np.testing.assert_array_equal(
            copy.encode(["push the red puck"], 8)[0], expected
        )


def test_training_twice_gives_the_same_bytes():
    sentences = list(make_corpus(500))
    first = train_tokenizer(sentences, 700)
    assert first.to_bytes() == train_tokenizer(sentences, 700).to_bytes()
    assert first.vocab_size <= 700


def test_corpus_is_a_function_of_its_seed():
    assert list(make_corpus(20)) == list(make_corpus(50))[:20]
    assert list(make_corpus(20, seed=1)) != list(make_corpus(20, seed=2))


def test_what_is_no_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        Tokenizer.from_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"missing\.model"):
        Tokenizer.from_file(tmp_path / "missing.model")
    with pytest.raises(ValueError, match="use more ids"):
        train_tokenizer(["open the drawer"], 100)
    with pytest.raises(ValueError, match="without any sentence"):
        train_tokenizer([" "], 500)


def test_instructions_are_kept_by_chance():
    top = np.uint64(2**64 - 1)
    chance = np.array([0, 2**62 - 2048, 2**62, 2**63, top], np.uint64)
    np.testing.assert_array_equal(
        keep_instructions(chance, 0.25), [False, False, True, True, True]
    )
    assert keep_instructions(chance, 0.0).all()


def test_each_phrasing_is_as_likely_and_one_or_none_is_no_choice():
    chance = hash_numbers(3, np.arange(12000))
    counts = np.bincount(choose_phrasings(chance, np.full(12000, 3)))
    # Binomial with mean 4000 and deviation 52.
    assert len(counts) == 3 and np.all(np.abs(counts - 4000) < 260)
    few = choose_phrasings(chance[:4], np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(few, [0, 0, 0, 0])
