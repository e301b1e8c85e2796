"""Names and words of token ids, for every way tokenizers write them."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sae_translate.demo.stories import generate
from sae_translate.languages.text import word_language
from sae_translate.languages.tokens import (
    byte_of_character,
    split_sentences,
    split_words,
    token_names,
    token_surfaces,
    word_starts,
    word_texts,
)

SENTENCES = ["The cat was singing.", "A singing cat, a café!\nThe end", "sing cat sing", "the cat is walking, talking"]
TEXT = SENTENCES * 4


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"])
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def whole_words():
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXT, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def encoded(tokenizer, text):
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_byte_level_surfaces_join_to_the_text():
    tokenizer = byte_level()
    surfaces = token_surfaces(tokenizer)
    ids = encoded(tokenizer, TEXT[0])
    assert "".join(surfaces[i] for i in ids) == TEXT[0]
    assert surfaces[tokenizer.convert_tokens_to_ids("<|endoftext|>")] == "<|endoftext|>"


def test_half_of_a_character_is_shown_as_its_byte():
    tokenizer = byte_level()
    surfaces = token_surfaces(tokenizer)
    first = tokenizer.convert_tokens_to_ids({b: c for c, b in byte_of_character().items()}[0xC3])
    assert surfaces[first] == "\\xc3"


def test_every_byte_has_one_character():
    table = byte_of_character()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("make", [byte_level, word_piece, whole_words])
def test_words_are_found_whatever_the_tokenizer(make):
    tokenizer = make()
    surfaces = token_surfaces(tokenizer)
    ids = encoded(tokenizer, "the cat was singing.")
    starts = word_starts(ids, np.array([0, len(ids)]), surfaces)
    texts, word_of = word_texts(ids, starts, surfaces)
    assert texts[-4:] == ["cat", "was", "singing", "."]
    assert len(word_of) == len(ids) and word_of[-1] == len(texts) - 1


def test_a_segment_always_begins_a_word():
    tokenizer = byte_level()
    surfaces = token_surfaces(tokenizer)
    ids = np.concatenate([encoded(tokenizer, "cat"), encoded(tokenizer, "ing")])
    middle = len(encoded(tokenizer, "cat"))
    assert word_starts(ids, np.array([0, middle, len(ids)]), surfaces)[middle]
    assert not word_starts(ids, np.array([0, len(ids)]), surfaces)[middle]


def test_pieces_inside_words_are_named_with_a_hyphen_and_their_word():
    surfaces = ["L", "ily", " cat", "ing", " walk", " talk", "\n", " "]
    lily, walking, talking = [0, 1], [4, 3], [5, 3]
    ids = np.array([*lily, 2, *walking, *lily, *talking, 6, *lily, 2, 7])
    names = token_names(ids, np.array([0, len(ids)]), surfaces)
    assert names[1] == "-ily (Lily)"
    assert names[0] == "L- (Lily)"
    assert names[2] == "cat"
    assert names[3] == "-ing"
    assert names[6] == "⏎" and names[7] == "␣"


def test_split_words_keeps_apostrophes_and_separates_punctuation():
    assert split_words("Lily's dog didn't bark, ja!") == ["Lily's", "dog", "didn't", "bark", ",", "ja", "!"]


def test_sentences_end_at_a_mark_and_its_quotation_unless_the_sentence_goes_on():
    text = "Tom ran home. “Where is it?” asked Anna. „Hier!“ rief sie. Well... yes, 3.5 of them! End"
    assert split_sentences(text) == [
        "Tom ran home.", "“Where is it?” asked Anna.", "„Hier!“ rief sie.", "Well... yes, 3.5 of them!", "End"
    ]  # fmt: skip


def test_a_language_of_sentences_has_the_items_and_positions_of_its_documents():
    documents = ["The cat sat. It slept.", "", "A dog ran."]
    whole, cut = word_language(documents), word_language(documents, sentences=True)
    assert cut.items == whole.items and (cut.corpus.matrix != whole.corpus.matrix).nnz == 0
    assert cut.corpus.segments.tolist() == [0, 4, 7, 11] and cut.corpus.documents.tolist() == [0, 0, 1]
    assert whole.corpus.segments.tolist() == [0, 7, 11]


def test_stories_are_cut_into_the_sentences_of_their_plots():
    for english, german in zip(generate("en", 40), generate("de", 40), strict=True):
        assert len(split_sentences(english.text)) == len(split_sentences(german.text))
