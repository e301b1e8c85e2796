"""Laws of reading sentences from latents: far above the floor, better than the dictionary, nothing where nothing is."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import sae_translate
from activation_cache.errors import UserError
from activation_cache.shards import ActivationCache
from sae_translate.align.decipher import DecipherConfig
from sae_translate.cli import main
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.demo.stories import generate_documents
from sae_translate.label.sentences import SentencesConfig, as_table, read_sentences

CONFIG = SentencesConfig(vocabulary=300, decipherment=DecipherConfig(max_source_core=500, null_core=200))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ActivationCache:
    folder = tmp_path_factory.mktemp("sentences") / "cache"
    documents = generate_documents("en", None, 11)
    return sae_translate.record(folder, sae=str(SAE), model=str(MODEL), documents=documents, tokens=80_000)


@pytest.fixture(scope="module")
def sentences(cache):
    return read_sentences(cache, config=CONFIG)


def test_documents_are_read_from_latents_better_than_by_the_dictionary(sentences):
    told = sentences.summary
    assert told["believed"] and told["reader"] > 0.5 > 3 * told["most_frequent"]
    assert told["reader"] > told["dictionary"]


def test_every_context_that_was_read_has_a_row_and_its_share(cache, sentences):
    table, told = sentences.table, sentences.summary
    assert set(table["document"]) <= set(cache.document_ids.tolist())
    assert 0.15 < told["n_tokens"] / cache.n_tokens < 0.25
    assert table["right"].between(0, 1).all()
    assert table["true"].str.len().sum() > 3 * told["n_tokens"]


def test_latents_of_other_positions_are_not_believed_and_read_no_better_than_the_floor(cache, monkeypatch):
    whole = cache.latents()
    order = np.random.default_rng(0).permutation(whole.shape[0])
    monkeypatch.setattr(ActivationCache, "latents", lambda self, name=None: sparse.csr_array(whole[order]))
    quick = replace(CONFIG, decipherment=replace(CONFIG.decipherment, iterations=20))
    told = read_sentences(cache, config=quick).summary
    assert not told["believed"] and told["reader"] < told["most_frequent"] + 0.03


def test_a_text_that_was_not_read_is_a_question_mark():
    row = as_table(np.array([0, -1]), np.array([0, 1]), np.array([0, 2]), np.array([4]), ["a", "b"]).iloc[0]
    assert (row["document"], row["read"], row["true"], row["right"]) == (4, "a ?", "ab", 0.5)


def test_a_cache_whose_latents_are_silent_is_one_clear_line(cache, monkeypatch):
    silent = sparse.csr_array(cache.latents().shape, dtype=np.float32)
    monkeypatch.setattr(ActivationCache, "latents", lambda self, name=None: silent)
    with pytest.raises(UserError, match="0 latents"):
        read_sentences(cache, config=CONFIG)


def test_the_command_writes_a_line_a_context_and_replaces_nothing_unasked(cache, tmp_path, monkeypatch, capsys):
    quick = replace(CONFIG, decipherment=replace(CONFIG.decipherment, null_surrogates=0, iterations=15))
    monkeypatch.setattr("sae_translate.label.sentences.SentencesConfig", lambda *given, **more: quick)
    arguments = ["sae-translate", "read", str(cache.path), "--out", str(tmp_path / "read.jsonl"), "--json"]
    for code in (0, 2):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            main()
        assert (end.value.code or 0) == code
    told, error = capsys.readouterr()
    lines = (tmp_path / "read.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(json.loads(lines[0])) == {"document", "context", "read", "true", "right"}
    assert json.loads(told)["n_tokens"] > 1000 and "--overwrite" in error
