"""A cache holds what the model and the SAE say, position by position, and survives every interruption."""

import dataclasses
import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny
import torch

from activation_cache import layout, shards
from activation_cache import record as recording
from activation_cache.errors import UserError
from activation_cache.layout import CooccurrenceEntry
from activation_cache.models import load_model
from activation_cache.plan import RecordingConfig, cut_contexts, default_dtype, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache
from activation_cache.transfers import Arriving

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny.model_folder(tmp_path_factory.mktemp("tiny-model"), tiny.llama()))


@pytest.fixture(scope="module")
def sae_folder(tmp_path_factory):
    return str(tiny.sae_folder(tmp_path_factory.mktemp("saes") / "topk", hook_name=HOOK, context_size=10,
                               prepend_bos=True, model_name="/elsewhere/tiny-model"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 50)


def plan(model, documents=None, **options):
    config = RecordingConfig(**({"dataset": "tiny", "hook_names": (HOOK,), "context_size": 10} | options))
    return plan_recording(config, tiny.documents() if documents is None else documents, model)


def written(plan, folder, **options) -> ActivationCache:
    list(record(plan, folder, **options))
    return ActivationCache(folder)


def reference(model, plan) -> np.ndarray:
    """Activations context by context, one forward each, nothing padded."""
    contexts, out = plan.contexts, []
    for start, end in zip(contexts.offsets, contexts.offsets[1:], strict=False):
        ids = torch.from_numpy(contexts.tokens[start:end]).long()
        if plan.manifest.prepend_bos:
            ids = torch.cat([torch.tensor([plan.manifest.bos_token_id]), ids])
        values = model.activations(ids[None], (HOOK,))[HOOK][0]
        out.append(values[int(plan.manifest.prepend_bos) :].numpy())
    return np.concatenate(out)


@pytest.mark.parametrize("bos", [False, True])
def test_recorded_activations_are_those_of_each_context_alone(model, tmp_path, small_shards, bos):
    planned = plan(model, prepend_bos=bos)
    cache = written(planned, tmp_path / "c")
    assert cache.manifest.n_shards > 3
    np.testing.assert_allclose(cache.activations(HOOK), reference(model, planned), atol=2e-3, rtol=1e-3)


def test_the_tokens_are_the_text_and_a_fed_bos_is_not_among_them(model, tmp_path, small_shards):
    documents = tiny.documents()
    cache = written(plan(model, documents, prepend_bos=True), tmp_path / "c")
    assert cache.tokenizer().decode(cache.tokens) == " ".join(documents)
    assert (cache.tokens != 0).all() and cache.n_tokens == len(cache.tokens)


def test_contexts_tile_the_positions_and_no_context_holds_two_documents(model, tmp_path, small_shards):
    documents = tiny.documents()
    cache = written(plan(model, documents, prepend_bos=False), tmp_path / "c")
    offsets = cache.context_offsets
    assert offsets[0] == 0 and offsets[-1] == cache.n_tokens and (np.diff(offsets) > 0).all()
    assert np.diff(offsets).max() == 10
    ids = cache.tokenizer()(documents)["input_ids"]
    for document, tokens in enumerate(ids):
        of_document = np.repeat(cache.document_ids, np.diff(offsets)) == document
        assert cache.tokens[of_document].tolist() == tokens
    assert cache.n_documents == len(documents)


def test_latents_are_the_saes_of_the_recorded_activations(model, tmp_path, small_shards, sae_folder):
    cache = written(plan(model, saes=(sae_folder,), hook_names=(), context_size=None, activations=True), tmp_path / "c")
    sae = plan(model, saes=(sae_folder,), context_size=None).saes[0]
    expected = sae.encode(torch.from_numpy(reference(model, plan(model, prepend_bos=True)))).numpy()
    np.testing.assert_allclose(cache.latents().toarray(), expected, rtol=2e-3, atol=1e-5)
    assert cache.latents().dtype == np.float32 and cache.latents().shape == (cache.n_tokens, sae.d_sae)


def test_statistics_are_those_of_the_latents(model, tmp_path, small_shards, sae_folder):
    cache = written(plan(model, saes=(sae_folder,), context_size=None), tmp_path / "c")
    latents, statistics = cache.latents().toarray(), cache.statistics()
    np.testing.assert_allclose(statistics.density, (latents > 0).mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.max, latents.max(0))
    live = np.flatnonzero(statistics.density)
    assert len(live) > 10
    for latent in live:
        best = statistics.top_positions[latent, 0]
        assert latents[best, latent] == latents[:, latent].max() == statistics.top_values[latent, 0]
        positions, counts = np.flatnonzero(latents[:, latent] > 0), statistics.token_counts[latent]
        assert (cache.tokens[positions] == statistics.token_ids[latent, 0]).sum() == counts[0] > 0


def test_co_occurrence_of_every_sae_is_that_of_its_latents(model, tmp_path, small_shards, sae_folder):
    other = str(tiny.sae_folder(tmp_path / "other", "standard", hook_name=HOOK, context_size=10))
    asked = CooccurrenceEntry((1, 4))
    cache = written(plan(model, saes=(sae_folder, other), context_size=None, cooccurrence=asked), tmp_path / "c")
    bounds = cache.context_offsets
    context = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    for name, lag in itertools.product(("topk", "other"), asked.lags):
        found, dense = cache.cooccurrence(lag, name), cache.latents(name).toarray()
        shares = (dense / dense.sum(1, keepdims=True))[:, found.latents]
        together = context[:-lag] == context[lag:]
        pairs = shares[:-lag][together].T @ shares[lag:][together]
        np.testing.assert_allclose(found.pairs[:-1, :-1], pairs, atol=1e-5)
        assert found.covered == 1 and set(found.latents) == set(np.flatnonzero(dense.sum(0)))
    with pytest.raises(UserError, match="no co-occurrence at lag 2: choose one of 1, 4"):
        cache.cooccurrence(2, "topk")
    without = written(plan(model, saes=(sae_folder,), context_size=None), tmp_path / "without")
    with pytest.raises(UserError, match="record it with --cooccurrence"):
        without.cooccurrence(1)


@pytest.mark.parametrize("options, says", [
    (dict(saes=(), cooccurrence=CooccurrenceEntry()), "give an --sae"),
    (dict(cooccurrence=CooccurrenceEntry(lags=())), "needed one or more"),
    (dict(cooccurrence=CooccurrenceEntry(lags=(0, 1))), "1 or higher"),
    (dict(cooccurrence=CooccurrenceEntry(lags=(2, 2))), "each once"),
    (dict(cooccurrence=CooccurrenceEntry(lags=(9, 24))), "at most 9 positions hold no two that are 9 apart"),
    (dict(cooccurrence=CooccurrenceEntry(megabytes=-5)), "give more --cooccurrence-mb"),
    (dict(cooccurrence=CooccurrenceEntry(megabytes=0)), "0 MiB are room for the co-occurrence of 0 latents"),
])
def test_co_occurrence_that_cannot_be_is_refused(model, sae_folder, options, says):
    with pytest.raises(UserError, match=says):
        plan(model, **dict(saes=(sae_folder,), hook_names=(), context_size=None) | options)


def test_several_hooks_and_saes_are_recorded_in_one_pass(model, tmp_path, sae_folder):
    other = tiny.sae_folder(tmp_path / "other", "standard", hook_name="blocks.2.hook_mlp_out", context_size=10)
    both = written(plan(model, saes=(sae_folder, str(other)), hook_names=(), context_size=None), tmp_path / "both")
    assert both.manifest.hook_names == (HOOK, "blocks.2.hook_mlp_out")
    for source, name in ((sae_folder, "topk"), (str(other), "other")):
        alone = written(plan(model, saes=(source,), hook_names=(), context_size=None, prepend_bos=True),
                        tmp_path / f"alone-{name}")
        np.testing.assert_allclose(both.latents(name).toarray(), alone.latents().toarray(), atol=1e-5, rtol=2e-3)
    with pytest.raises(UserError, match="choose one of topk, other"):
        both.latents()
    with pytest.raises(UserError, match="no dense activations"):
        both.activations()


def test_the_number_of_tokens_is_exact(model, tmp_path, small_shards):
    for n in (1, 9, 10, 11, 137):
        cache = written(plan(model, n_tokens=n), tmp_path / str(n))
        assert cache.n_tokens == n == len(cache.tokens) == len(cache.activations()) == cache.context_offsets[-1]


def test_too_few_tokens_are_told_with_their_number_and_nothing_is_written(model, tmp_path):
    total = len(plan(model).contexts.tokens)
    with pytest.raises(UserError, match=f"1,000,000 tokens were asked for, but tiny has {total}"):
        written(plan(model, n_tokens=1_000_000), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_mixing_joins_documents_with_a_separator_before_cutting():
    mixed = cut_contexts([[5, 6, 7], [], [8, 9], [3, 4]], 4, None, "d", separator=1)
    assert mixed.tokens.tolist() == [5, 6, 7, 1, 8, 9, 1, 3, 4]
    assert mixed.offsets.tolist() == [0, 4, 8, 9]
    assert mixed.document_ids.tolist() == [0, 1, 2]


def test_apart_documents_are_cut_each_from_its_own_start():
    apart = cut_contexts([[5, 6, 7], [], [8, 9], [3, 4, 5, 6, 7]], 2, 9, "d")
    assert apart.tokens.tolist() == [5, 6, 7, 8, 9, 3, 4, 5, 6]
    assert apart.offsets.tolist() == [0, 2, 3, 5, 7, 9]
    assert apart.document_ids.tolist() == [0, 0, 1, 2, 2]


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def whole(model, tmp_path, small_shards, sae_folder):
    planned = plan(model, saes=(sae_folder,), context_size=None, activations=True)
    written(planned, tmp_path / "whole")
    return planned, content(tmp_path / "whole")


@pytest.mark.parametrize("n_shards", [0, 1, 3])
def test_an_interrupted_recording_continues_to_the_same_bytes(whole, tmp_path, n_shards):
    planned, expected = whole
    run = record(planned, tmp_path / "c")
    for _ in range(n_shards):
        next(run)
    run.close()
    if n_shards:
        with pytest.raises(UserError, match=r"is incomplete.*--resume"):
            ActivationCache(tmp_path / "c")
    (tmp_path / "c" / layout.SHARDS).mkdir(parents=True, exist_ok=True)
    (tmp_path / "c" / layout.SHARDS / ".00003.safetensors.tmp").write_bytes(b"torn")
    kept = [step.kept for step in record(planned, tmp_path / "c", resume=True)]
    assert sum(kept) == n_shards
    assert content(tmp_path / "c") == expected


@pytest.mark.parametrize("write", range(1, 16, 3))
def test_a_crash_at_any_write_can_be_resumed_to_the_same_bytes(whole, tmp_path, monkeypatch, write):
    planned, expected = whole
    calls, replace = [], os.replace

    def crash(source, target):
        calls.append(target)
        if len(calls) == write:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        list(record(planned, tmp_path / "c"))
    monkeypatch.setattr(os, "replace", replace)
    list(record(planned, tmp_path / "c", resume=True))
    assert content(tmp_path / "c") == expected


def test_a_truncated_shard_is_named_on_opening_and_resume(whole, tmp_path):
    planned, _ = whole
    (path := tmp_path / "whole" / layout.shard_file(2)).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"00002\.safetensors has .* truncated"):
        ActivationCache(tmp_path / "whole")
    with pytest.raises(UserError, match=r"00002\.safetensors has .* truncated"):
        list(record(planned, tmp_path / "whole", resume=True))


def test_an_altered_shard_is_never_returned(whole, tmp_path):
    path = tmp_path / "whole" / layout.shard_file(1)
    altered = bytearray(path.read_bytes())
    altered[-3] ^= 1
    path.write_bytes(altered)
    cache = ActivationCache(tmp_path / "whole")
    for read in (lambda: cache.tokens, cache.latents, cache.activations):
        with pytest.raises(UserError, match=r"00001\.safetensors does not match its sha256"):
            read()
    assert [file for file, wrong in cache.verify() if wrong] == [layout.shard_file(1)]


def test_an_altered_tokenizer_is_found(whole, tmp_path):
    path = tmp_path / "whole" / layout.TOKENIZER / "tokenizer.json"
    path.write_text(path.read_text().replace("w17", "w71"))
    cache = ActivationCache(tmp_path / "whole")
    with pytest.raises(UserError, match=r"tokenizer\.json was altered"):
        cache.tokenizer()
    assert [file for file, wrong in cache.verify() if wrong] == [f"{layout.TOKENIZER}/tokenizer.json"]


def test_a_missing_shard_makes_the_cache_incomplete(whole, tmp_path):
    (tmp_path / "whole" / layout.sidecar_file(layout.shard_file(1))).unlink()
    with pytest.raises(UserError, match=r"incomplete, shards/00001\.safetensors is missing"):
        ActivationCache(tmp_path / "whole")


def test_another_recording_is_never_mixed_in(model, whole, tmp_path):
    for change, field in ((dict(documents=tiny.documents(seed=1)), "dataset_identity"), (dict(seed=3), "seed"),
                          (dict(prepend_bos=False), "prepend_bos")):
        with pytest.raises(UserError, match=f"differs in .*{field}"):
            list(record(plan(model, **change), tmp_path / "whole", resume=True))


@pytest.mark.parametrize("behind", [True, False])
def test_a_shard_is_written_while_the_next_is_computed_on_a_gpu_and_before_it_elsewhere(
    whole, tmp_path, monkeypatch, behind
):
    planned, expected = whole
    begun, on_disk = threading.Event(), []
    compute_shard, write_arrays = recording.compute_shard, shards.write_arrays

    def computing(plan, index):
        if index == 1:
            on_disk.append((tmp_path / "c" / layout.sidecar_file(layout.shard_file(0))).exists())
            begun.set()
        return compute_shard(plan, index)

    def writing(*arguments):
        assert not behind or begun.wait(60), "the second shard was not begun while the first was written"
        return write_arrays(*arguments)

    monkeypatch.setattr(recording, "BEHIND", {"cpu"} if behind else {"cuda"})
    monkeypatch.setattr(recording, "compute_shard", computing)
    monkeypatch.setattr(shards, "write_arrays", writing)
    steps = list(record(planned, tmp_path / "c"))
    assert on_disk == [not behind] and content(tmp_path / "c") == expected
    assert [step.n_tokens for step in steps] == sorted(step.n_tokens for step in steps)
    assert len(steps) == planned.manifest.n_shards and steps[-1].n_tokens == planned.manifest.n_tokens


def test_a_device_that_writes_behind_leaves_what_can_be_continued_wherever_it_is_left(whole, tmp_path, monkeypatch):
    planned, expected = whole
    monkeypatch.setattr(recording, "BEHIND", {"cpu"})
    for after in range(1, planned.manifest.n_shards):
        steps = record(planned, tmp_path / str(after))
        for _ in range(after):
            next(steps)
        steps.close()
        list(record(planned, tmp_path / str(after), resume=True))
        assert content(tmp_path / str(after)) == expected


def test_the_statistics_of_a_shard_are_gathered_while_the_next_is_computed(whole, tmp_path, monkeypatch):
    planned, expected = whole
    second = threading.Event()
    compute_shard, gathered = recording.compute_shard, recording.gathered

    def computing(plan, index):
        if index == 1:
            second.set()
        return compute_shard(plan, index)

    def gathering(*arguments):
        assert second.wait(60), "the second shard was not begun before the statistics of the first were there"
        return gathered(*arguments)

    monkeypatch.setattr(recording, "compute_shard", computing)
    monkeypatch.setattr(recording, "gathered", gathering)
    written(planned, tmp_path / "c")
    assert content(tmp_path / "c") == expected


def test_gathering_takes_one_thread_beside_a_forward_on_the_same_cores_and_the_others_are_left_as_they_were(
    model, tmp_path, small_shards, sae_folder, monkeypatch
):
    threads, gathered = [], recording.gathered

    def counting(*given):
        threads.append(torch.get_num_threads())
        return gathered(*given)

    monkeypatch.setattr(recording, "gathered", counting)
    torch.set_num_threads(2)
    try:
        steps = record(plan(model, saes=(sae_folder,), context_size=None), tmp_path / "c")
        assert {torch.get_num_threads() for _ in steps} == {2} and set(threads) == {1}
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)


def test_a_cache_of_older_arithmetic_is_read_but_not_continued(model, tmp_path, small_shards):
    planned = plan(model)
    old = dataclasses.replace(planned.manifest, arithmetic=layout.ARITHMETIC - 1)
    old = dataclasses.replace(old, key=layout.run_key(old))
    cache = written(dataclasses.replace(planned, manifest=old), tmp_path / "c")
    assert len(cache.activations()) == cache.n_tokens
    with pytest.raises(UserError, match="differs in arithmetic"):
        list(record(planned, tmp_path / "c", resume=True))


def test_a_cache_of_the_older_format_is_read_with_what_its_statistics_have_and_not_continued(
    model, tmp_path, small_shards, sae_folder
):
    planned = plan(model, saes=(sae_folder,), context_size=None)
    old = dataclasses.replace(planned.manifest, format=layout.READABLE[1])
    old = dataclasses.replace(old, key=layout.run_key(old))
    whole = written(dataclasses.replace(planned, manifest=old), tmp_path / "c").statistics()
    since = ("second_moment", "token_ids", "token_counts", "token_counts_lack", "random_positions", "random_values")
    before = {name: values for name, values in vars(whole).items() if name not in since}
    shards.write_arrays(tmp_path / "c", layout.statistics_file(0), before, old.key, old.n_tokens, old.n_contexts)
    read = ActivationCache(tmp_path / "c").statistics()
    np.testing.assert_array_equal(read.top_positions, whole.top_positions)
    assert all(getattr(read, name) is None for name in since)
    with pytest.raises(UserError, match="differs in format"):
        list(record(planned, tmp_path / "c", resume=True))


def test_an_existing_cache_is_only_replaced_when_asked(model, whole, tmp_path):
    planned, expected = whole
    with pytest.raises(UserError, match="continue it with --resume, replace it with --overwrite"):
        list(record(planned, tmp_path / "whole"))
    assert content(tmp_path / "whole") == expected
    replaced = written(plan(model, n_tokens=20), tmp_path / "whole", overwrite=True)
    assert replaced.n_tokens == 20 and not any(wrong for _, wrong in replaced.verify())


def test_overwrite_touches_nothing_that_is_not_a_cache_of_ours(model, whole, tmp_path):
    planned, _ = whole
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        list(record(planned, tmp_path / "mine", overwrite=True))
    (tmp_path / "whole" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"also holds notes\.txt"):
        list(record(planned, tmp_path / "whole", overwrite=True))
    assert (tmp_path / "whole" / "notes.txt").exists() and (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        list(record(planned, tmp_path / "file", overwrite=True))


def test_two_recordings_cannot_write_one_folder(whole, tmp_path):
    planned, _ = whole
    first = record(planned, tmp_path / "c")
    next(first)
    with pytest.raises(UserError, match="another process is writing"):
        next(record(planned, tmp_path / "c", resume=True))
    first.close()


def test_a_cache_moved_elsewhere_is_still_read_and_resumed(whole, tmp_path):
    planned, expected = whole
    shutil.move(tmp_path / "whole", tmp_path / "moved")
    assert ActivationCache(tmp_path / "moved").n_tokens == planned.manifest.n_tokens
    assert all(step.kept for step in record(planned, tmp_path / "moved", resume=True))
    assert content(tmp_path / "moved") == expected


@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_a_centred_sae_is_fed_a_centred_residual_stream(tmp_path, architecture):
    model = load_model(tiny.model_folder(tmp_path / "m", tiny.NETWORKS[architecture]()))
    told = dict(hook_name=HOOK, context_size=10, model_from_pretrained_kwargs={"center_writing_weights": True})
    folder = tiny.sae_folder(tmp_path / "sae", **told)
    planned = plan(model, saes=(str(folder),), hook_names=(), context_size=None, activations=True)
    assert planned.manifest.centered and any("mean over the width" in note for note in planned.notes)
    cache = written(planned, tmp_path / "c")
    expected = reference(model, planned)
    np.testing.assert_allclose(cache.activations(), expected - expected.mean(1, keepdims=True), atol=2e-3, rtol=1e-3)


def test_the_bytes_of_the_plan_are_those_that_are_written(model, tmp_path, sae_folder, small_shards):
    long = tiny.documents(n=40)
    dense = plan(model, long)
    assert dense.manifest.n_shards > 5 and dense.n_bytes == written(dense, tmp_path / "dense").n_bytes
    sparse = plan(model, long, saes=(sae_folder,), context_size=None)
    assert sparse.n_bytes == pytest.approx(written(sparse, tmp_path / "sparse").n_bytes, rel=0.02)


def test_an_architecture_without_a_sparse_path_is_recorded_by_its_own_encode_and_said(model, tmp_path):
    folder = tiny.sae_folder(tmp_path / "pursuit", "matching_pursuit", hook_name=HOOK, context_size=10)
    planned = plan(model, saes=(str(folder),), hook_names=(), context_size=None, activations=True)
    assert any("no sparse path for matching_pursuit SAEs, sae.encode is used" in note for note in planned.notes)
    cache = written(planned, tmp_path / "c")
    expected = planned.saes[0].encode(torch.from_numpy(reference(model, planned))).numpy()
    assert ((cache.latents().toarray() != 0) == (expected != 0)).mean() > 0.999


CONTRADICTIONS = {
    "model": (dict(model="pythia-70m"), "contradicts the SAE"),
    "hook": (dict(hook_names=("blocks.0.hook_resid_post",)), "contradicts the SAE .* reads blocks.1.hook_resid_post"),
    "context size": (dict(context_size=12), "context_size 12 contradicts the SAE .* trained with 10"),
    "bos": (dict(prepend_bos=False), "prepend_bos False contradicts the SAE"),
    "nothing": (dict(activations=False, saes=()), "nothing to record"),
    "no tokens": (dict(n_tokens=0), "asked for 0 tokens"),
    "too long": (dict(saes=(), context_size=65), "more than the 64 positions"),
    "no room": (dict(saes=(), context_size=1, prepend_bos=True), "leaves no position"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_with_the_saes_metadata_is_an_error(model, sae_folder, what):
    changes, says = CONTRADICTIONS[what]
    options = dict(saes=(sae_folder,), context_size=None, hook_names=()) | changes
    given = None if "model" in changes else model
    config = RecordingConfig(dataset="tiny", **options)
    with pytest.raises(UserError, match=says):
        plan_recording(config, tiny.documents(), given)


def test_an_sae_of_another_width_is_refused(model, tmp_path):
    folder = tiny.sae_folder(tmp_path / "wide", d_in=48, hook_name=HOOK)
    with pytest.raises(UserError, match=r"reads 48 dimensions, but blocks.1.hook_resid_post .* has 32"):
        plan(model, saes=(str(folder),))


def test_a_model_recorded_at_a_path_of_another_machine_must_be_given_here(sae_folder, tmp_path):
    config = RecordingConfig(saes=(sae_folder,))
    with pytest.raises(UserError, match="trained on a model at /elsewhere/tiny-model, which is not here: give --model"):
        plan_recording(config, tiny.documents())
    here = tiny.model_folder(tmp_path / "tiny-model", tiny.llama())
    planned = plan_recording(dataclasses.replace(config, model=str(here)), tiny.documents())
    assert planned.manifest.model == str(here)


def test_activations_beyond_float16_are_cut_to_its_largest_and_counted(model, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_forward", lambda *given, told=recording._forward: {
        name: value * 1e7 for name, value in told(*given).items()})
    *_, last = record(plan(model), tmp_path / "c")
    values = ActivationCache(tmp_path / "c").activations()
    assert np.abs(values).max() == recording.LARGEST_HALF
    with np.errstate(over="ignore"):
        beyond = np.isinf((reference(model, plan(model)) * 1e7).astype(np.float16))
    assert last.saturated == beyond.sum() > 0


def test_a_batch_is_taken_from_the_device_when_the_next_has_been_begun(model, tmp_path, monkeypatch):
    """And its bytes are those of a recording that takes it at once."""
    at_once = written(plan(model, batch_size=4), tmp_path / "a")
    events, forward, wait = [], recording._forward, Arriving.wait
    monkeypatch.setattr(recording, "_forward", lambda *given: events.append("begun") or forward(*given))
    monkeypatch.setattr(Arriving, "wait", lambda self: events.append("taken") or wait(self))
    again = written(plan(model, batch_size=4), tmp_path / "b")
    assert events == ["begun", *["begun", "taken"] * (len(events) // 2 - 1), "taken"] and len(events) > 6
    np.testing.assert_array_equal(again.activations(), at_once.activations())


def test_half_precision_is_the_default_on_a_gpu_only(model):
    assert default_dtype("cuda") == default_dtype("cuda:1") == "bfloat16"
    assert default_dtype("cpu") == plan(model).manifest.dtype == "float32"


def test_half_precision_runs_and_says_so(model, tmp_path, small_shards):
    here = tiny.model_folder(tmp_path / "m", tiny.llama())
    half = plan_recording(RecordingConfig(model=str(here), dataset="t", dtype="bfloat16", hook_names=(HOOK,),
                                          context_size=10), tiny.documents())
    cache = written(half, tmp_path / "c")
    assert cache.manifest.dtype == "bfloat16"
    full = reference(model, plan(model, prepend_bos=True))
    error = np.abs(cache.activations() - full).mean() / np.abs(full).mean()
    assert 0 < error < 0.03
