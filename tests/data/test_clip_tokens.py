"""CLIP's byte pairs, on a small vocabulary, against transformers and by hand."""

import json
import pickle

import numpy as np
import pytest

from vla_jax.data.clip_tokens import CLIPTokenizer, _byte_characters
from vla_jax.data.text import Tokenizer
from vla_jax.serving.export import portable_tokenizer
from vla_jax.serving.processors import read_tokenizer

MERGES = [
    "o p",
    "e n</w>",
    "op en</w>",
    "t h",
    "th e</w>",
    "r e",
    "re d</w>",
    "' s</w>",
]
TEXTS = [
    "open the red box",
    "Open  THE\tbox!",
    "it's the 12th, isn't it?",
    "öffne die Schublade",
    "引き出し 🙂",
    "re-open",
]


def vocabulary():
    single = _byte_characters()
    pieces = [*single, *(c + "</w>" for c in single)]
    pieces += [merge.replace(" ", "") for merge in MERGES]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return {piece: number for number, piece in enumerate(pieces)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_file(folder)


def test_ids_are_those_of_transformers(folder, tokenizer):
    import transformers

    theirs = transformers.CLIPTokenizer.from_pretrained(str(folder))
    ids, mask = tokenizer.encode(TEXTS, 77)
    for row, text in enumerate(TEXTS):
        assert ids[row, mask[row]].tolist() == theirs(text)["input_ids"], text


def test_merges_come_in_their_order_and_padding_on_the_right(tokenizer):
    known = vocabulary()
    ids, mask = tokenizer.encode(["open red", ""], 5)
    begin, end = known["<|startoftext|>"], known["<|endoftext|>"]
    assert ids[0].tolist() == [begin, known["open</w>"], known["red</w>"], end, 0]
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 0], [0] * 5])
    assert tokenizer.vocab_size == len(known)


def test_decoding_gives_the_words_back(tokenizer):
    ids, _ = tokenizer.encode(["Open the Schüssel"], 30)
    assert tokenizer.decode(ids) == ["open the schüssel"]


def test_long_instructions_are_refused_or_keep_the_end_mark(tokenizer):
    with pytest.raises(ValueError, match=r"takes 4 tokens, but only 3 are allowed"):
        tokenizer.encode(["open the"], 3)
    ids, mask = tokenizer.encode(["open the"], 3, truncate=True)
    assert ids[0, -1] == vocabulary()["<|endoftext|>"] and mask.all()


def test_checkpoints_workers_and_bundles_keep_it(tokenizer, tmp_path):
    expected, _ = tokenizer.encode(TEXTS, 77)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.to_bytes())
    portable = portable_tokenizer(tokenizer)
    (tmp_path / "tokenizer.json").write_text(json.dumps(portable.to_json()))
    for copy in (
        Tokenizer.from_file(tmp_path / "tokenizer.model"),
        pickle.loads(pickle.dumps(tokenizer)),
        read_tokenizer(tmp_path),
    ):
        np.testing.assert_array_equal(copy.encode(TEXTS, 77)[0], expected)


def test_files_of_two_models_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no readable vocab\.json and merges\.txt"):
        CLIPTokenizer.from_folder(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \['ab'\] \(1 in all\)"):
        CLIPTokenizer(vocabulary(), ["a b"])
    with pytest.raises(ValueError, match="expected 'clip'"):
        CLIPTokenizer.from_json({"type": "bpe"})
