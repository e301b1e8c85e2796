"""A cache under a URL is the cache in a folder: recorded, continued, verified, mended and read by every command."""

import json
import threading
import uuid

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from activation_cache import layout, shards
from activation_cache.errors import UserError
from activation_cache.places import place
from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record
from activation_cache.shards import ActivationCache
from sae_translate.align.decipher import DecipherConfig
from sae_translate.cli.main import app
from sae_translate.label.latents import LabelConfig, label_latents

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny.model_folder(folder / "model", tiny.llama())
    (folder / "text.json").write_text(json.dumps(tiny.documents(n=40)))
    tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model")
    return folder


@pytest.fixture
def planned(inputs):
    return plan_recording(RecordingConfig(str(inputs / "model"), (str(inputs / "sae"),), str(inputs / "text.json"),
                                          activations=True))  # fmt: skip


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/cache"


def run(*line: str) -> str:
    result = CliRunner().invoke(app, list(map(str, line)), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def content(where) -> dict[str, bytes]:
    root = place(where)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_recording_under_a_url_that_was_broken_off_continues_to_the_bytes_of_a_folder(planned, url, tmp_path):
    list(record(planned, tmp_path / "c"))
    running = record(planned, url)
    next(running)
    next(running)
    running.close()
    with pytest.raises(UserError, match=r"is incomplete.*--resume"):
        ActivationCache(url)
    with pytest.raises(UserError, match="continue it with --resume, replace it with --overwrite"):
        next(record(planned, url))
    assert [step.kept for step in record(planned, url, resume=True)][:3] == [True, True, False]
    assert content(url) == content(tmp_path / "c")
    list(record(planned, url, overwrite=True))
    assert content(url) == content(tmp_path / "c")


def test_a_shard_exists_once_its_sidecar_does_and_the_sidecar_is_put_last(planned, url, monkeypatch):
    order, put = [], shards.put

    def watch(path, data):
        order.append(str(path).removeprefix(f"{url}/"))
        put(path, data)

    monkeypatch.setattr(shards, "put", watch)
    list(record(planned, url))
    for index in range(planned.manifest.n_shards):
        file = layout.shard_file(index)
        assert order.index(layout.sidecar_file(file)) == order.index(file) + 1
    assert order.index(layout.MANIFEST) < order.index(layout.shard_file(0))


def test_a_store_that_refuses_is_told_in_a_line_and_the_recording_can_be_continued(planned, url, tmp_path, monkeypatch):
    list(record(planned, tmp_path / "c"))
    running = record(planned, url)
    next(running)
    with monkeypatch.context() as patch:

        def refuse(*_, **__):
            raise ValueError("the bucket is full")

        patch.setattr(place(url).fs, "pipe_file", refuse)
        with pytest.raises(UserError, match=r"could not be written \(ValueError: the bucket is full\).*--resume"):
            next(running)
    list(record(planned, url, resume=True))
    assert content(url) == content(tmp_path / "c")


def test_the_requests_of_opening_overlap(planned, url, monkeypatch):
    list(record(planned, url))
    meeting = threading.Barrier(3, timeout=20)
    real = shards.read

    def slowly(path):
        if "shards/0000" in str(path) and str(path)[-6] in "012":
            meeting.wait()  # each of the first three returns once all three were asked for
        return real(path)

    monkeypatch.setattr(shards, "read", slowly)
    assert ActivationCache(url).n_tokens == planned.manifest.n_tokens


def test_a_cache_under_a_url_is_read_as_one_in_a_folder(planned, url, tmp_path):
    here, there = (list(record(planned, out)) and ActivationCache(out) for out in (tmp_path / "c", url))
    assert there.tokenizer().get_vocab() == here.tokenizer().get_vocab()
    np.testing.assert_array_equal(there.tokens, here.tokens)
    np.testing.assert_array_equal(there.activations(), here.activations())
    assert (there.latents() != here.latents()).nnz == 0
    np.testing.assert_array_equal(there.statistics().top_positions, here.statistics().top_positions)
    through_a_local_copy = ActivationCache(f"simplecache::{url}")
    np.testing.assert_array_equal(through_a_local_copy.activations(), here.activations())


def test_the_commands_take_urls(inputs, url, tmp_path):
    store = place(url).parent / "text.json"
    store.write_bytes((inputs / "text.json").read_bytes())
    run("cache", "--model", inputs / "model", "--sae", inputs / "sae", "--dataset", store, "--activations",
        "--out", url)  # fmt: skip
    assert json.loads(run("info", url, "--json"))["complete"]
    assert "all as recorded" in run("verify", url)
    before = content(url)
    damaged = place(url) / layout.shard_file(1)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"00001\.safetensors does not match its sha256"):
        run("verify", url)
    assert "repaired shards/00001.safetensors" in run("verify", url, "--repair")
    assert content(url) == before
    run("train-sae", "--cache", url, "--d-sae", 32, "--k", 4, "--out", tmp_path / "sae", "--batch-size", 64,
        "--epochs", 1)  # fmt: skip
    assert (tmp_path / "sae/cfg.json").exists()


def test_what_is_no_cache_under_a_url_is_told(url):
    with pytest.raises(UserError, match=f"{url} is not an activation cache"):
        run("verify", url)
    with pytest.raises(UserError, match="no such folder"):
        run("info", url)
    place(f"{url}/other").write_bytes(b"x")
    with pytest.raises(UserError, match="copy it here"):
        run("info", url)


def test_labels_are_those_of_the_same_cache_in_a_folder(tmp_path, url):
    from sae_translate.cli.demo import MODEL, SAE
    from sae_translate.demo.stories import generate_documents

    config = RecordingConfig(str(MODEL), (str(SAE),), n_tokens=4000)
    plan = plan_recording(config, generate_documents("en", 300, 0))
    for out in (tmp_path / "c", url):
        list(record(plan, out))
    quick = LabelConfig(vocabulary=50, decipherment=DecipherConfig(iterations=3, null_surrogates=0))
    here, there = (label_latents(out, config=quick) for out in (tmp_path / "c", url))
    assert here.table.equals(there.table)
