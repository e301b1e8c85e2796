"""The format refuses whatever it did not write."""

import dataclasses
import json

import numpy as np
import pytest

from activation_cache import layout
from activation_cache.errors import UserError
from activation_cache.layout import CooccurrenceEntry, FileEntry, HookEntry, Manifest, SaeEntry, Sidecar


def manifest(**changes) -> Manifest:
    plain = Manifest(
        key="", model="m", model_identity="a", dataset="d", dataset_identity="b",
        hooks=(HookEntry("blocks.0.hook_resid_post", 8, True),),
        saes=(SaeEntry("s", "/s", "blocks.0.hook_resid_post", 8, 32, "topk", "c"),), context_size=16,
        prepend_bos=True, bos_token_id=0, mix_documents=False, centered=False, dtype="float32", batch_size=16, seed=0,
        n_tokens=100, n_contexts=10, n_documents=3, contexts_per_shard=4,
    )
    changed = dataclasses.replace(plain, **changes)
    return dataclasses.replace(changed, key=layout.run_key(changed))


def test_a_manifest_survives_the_way_to_disk_and_back():
    written = manifest(files=(FileEntry("tokenizer/t.json", "e"),), bos_token_id=None)
    assert layout.manifest_from_json(layout.manifest_to_json(written), "here") == written


PAIRS = dict(format=layout.FORMAT_WITH_COOCCURRENCE, cooccurrence=CooccurrenceEntry((1, 24), 64))


def test_co_occurrence_is_a_field_and_a_format_where_it_is_gathered_and_no_trace_where_it_is_not():
    written = manifest(**PAIRS)
    assert layout.manifest_from_json(layout.manifest_to_json(written), "here") == written
    assert written.summary_files == [
        "statistics/0.safetensors", "statistics/0-lag-1.safetensors", "statistics/0-lag-24.safetensors"]
    without = json.loads(layout.manifest_to_json(manifest()))
    assert "cooccurrence" not in without and without["format"] == "activation-cache/3"
    assert layout.differences(manifest(), written) == ["format", "cooccurrence"]


@pytest.mark.parametrize("change, says", [
    (lambda raw: raw["cooccurrence"].update(megabytes=65), "does not match its own key"),
    (lambda raw: raw["cooccurrence"].update(lags=[2, 24]), "does not match its own key"),
    (lambda raw: raw["cooccurrence"].update(lags=[1, "24"]), "lags is [1, '24']"),
    (lambda raw: raw["cooccurrence"].update(lags=[-1]), "lags is [-1]"),
    (lambda raw: raw["cooccurrence"].update(lags=[]), "lags is []"),
    (lambda raw: raw["cooccurrence"].update(lags=3), "lags is 3"),
    (lambda raw: raw["cooccurrence"].pop("lags"), "'lags' is missing"),
    (lambda raw: raw.pop("cooccurrence"), "not an object"),
    (lambda raw: raw.update(format=layout.FORMAT), "does not match its own key"),
])
def test_an_altered_co_occurrence_is_refused_with_what_is_wrong(change, says):
    raw = json.loads(layout.manifest_to_json(manifest(**PAIRS)))
    change(raw)
    with pytest.raises(UserError) as caught:
        layout.manifest_from_json(json.dumps(raw), "c/manifest.json")
    assert says in str(caught.value)


@pytest.mark.parametrize("change", [
    dict(model_identity="z"), dict(dataset_identity="z"), dict(dtype="bfloat16"), dict(context_size=17),
    dict(prepend_bos=False), dict(n_tokens=99), dict(centered=True), dict(seed=1), dict(batch_size=8),
    dict(cooccurrence=CooccurrenceEntry()),
    dict(hooks=(HookEntry("blocks.1.hook_resid_post", 8, True),)), dict(format="activation-cache/1"),
    dict(arithmetic=1), dict(saes=(SaeEntry("s", "/s", "blocks.0.hook_resid_post", 8, 32, "topk", "z"),)),
])
def test_whatever_decides_the_bytes_changes_the_key(change):
    assert manifest(**change).key != manifest().key


def test_the_key_does_not_depend_on_where_things_were_found():
    moved = manifest(model="/elsewhere", dataset="/elsewhere/d.txt", saes=(
        SaeEntry("s", "/elsewhere/s", "blocks.0.hook_resid_post", 8, 32, "topk", "c"),))
    assert moved.key == manifest().key
    assert layout.differences(manifest(), moved) == []
    assert layout.differences(manifest(), manifest(seed=4)) == ["seed"]


def broken(change) -> str:
    raw = json.loads(layout.manifest_to_json(manifest(files=(FileEntry("tokenizer/t.json", "e"),))))
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize("change, says", [
    (lambda raw: raw.update(n_tokens=101), "does not match its own key"),
    (lambda raw: raw.update(n_tokens=-1), "n_tokens is -1"),
    (lambda raw: raw.update(n_tokens="100"), "n_tokens is '100'"),
    (lambda raw: raw.update(prepend_bos=1), "prepend_bos is 1"),
    (lambda raw: raw.pop("seed"), "'seed' is missing"),
    (lambda raw: raw.update(sead=0), "unknown field 'sead'. did you mean seed"),
    (lambda raw: raw.update(format="other/9"), "format 'other/9'"),
    (lambda raw: raw.update(saes="all"), "saes must be a list"),
    (lambda raw: raw.update(hooks=["h"]), "not an object"),
    (lambda raw: raw["files"][0].update(path="../../etc/passwd"), "leaves the cache's folder"),
    (lambda raw: raw["files"][0].update(path="/etc/passwd"), "leaves the cache's folder"),
])
def test_an_altered_manifest_is_refused_with_what_is_wrong(change, says):
    with pytest.raises(UserError, match=r"(?s).*") as caught:
        layout.manifest_from_json(broken(change), "c/manifest.json")
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "not json"])
def test_what_is_no_json_object_is_no_manifest_and_no_sidecar(text):
    for read in (layout.manifest_from_json, layout.sidecar_from_json):
        with pytest.raises(UserError):
            read(text, "here")


def test_a_sidecar_survives_the_way_to_disk_and_back():
    sidecar = Sidecar("k", "s", 10, 4, 2, 1)
    assert layout.sidecar_from_json(layout.sidecar_to_json(sidecar), "here") == sidecar


def test_every_latent_has_a_number_in_the_index_type():
    for d_sae in (1, 1 << 16, (1 << 16) + 1, 1 << 20):
        assert np.iinfo(layout.index_dtype(d_sae)).max >= d_sae - 1
    assert layout.index_dtype(1 << 16) is np.uint16


def test_histogram_bins_tile_the_range_in_growing_steps():
    edges = layout.HISTOGRAM_EDGES
    assert len(edges) == 65 and edges[0] == 2**-6 and edges[-1] == 2**10
    assert (np.diff(edges) > 0).all() and np.isfinite(edges).all()
