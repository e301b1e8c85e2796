"""What a cache recorded of its latents goes with their language, and with no other."""

import numpy as np
import pytest
import tiny

from activation_cache.layout import CooccurrenceEntry
from activation_cache.models import load_model
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from sae_translate.align.recorded import Part, recorded_pairs
from sae_translate.align.statistics import fold, lagged_cooccurrence, share_positions
from sae_translate.cli.align import read

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The same recording twice, with co-occurrence of all latents and without."""
    folder = tmp_path_factory.mktemp("caches")
    model = load_model(tiny.model_folder(folder / "model", tiny.llama()))
    sae = str(tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model"))
    for name, asked in (("with", CooccurrenceEntry((1, 4))), ("without", None)):
        config = RecordingConfig(saes=(sae,), dataset="tiny", cooccurrence=asked)
        list(record(plan_recording(config, tiny.documents(n=40), model), folder / name))
    return folder


def test_the_pairs_recorded_of_all_latents_are_those_of_the_language_that_is_read(caches):
    corpus = read(str(caches / "with"), 4000, False, None, 0).corpus
    items = np.arange(9)
    part = Part(items, True, fold(share_positions(corpus.matrix), items, True))
    for lag in (1, 4):
        counted = lagged_cooccurrence(part.shared, part.shared, corpus.segments, lag).toarray()
        np.testing.assert_allclose(recorded_pairs(corpus, part, part, lag), counted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache, n", [("without", 4000), ("with", 10)])
def test_a_language_cut_to_some_latents_and_one_of_a_cache_without_pairs_have_none(caches, cache, n):
    language = read(str(caches / cache), n, False, None, 0)
    assert language.corpus.recorded is None and (len(language.items) == 10) == (n == 10)
