"""The user's own two lines, as typed, against a hub on loopback that serves the true names."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import standin_hub

from activation_cache.shards import ActivationCache
from sae_translate.demo.stories import generate_documents

DOCUMENTS = 300


@pytest.fixture(scope="module")
def hub():
    documents = list(generate_documents("en", DOCUMENTS, 0))
    with standin_hub.serve(standin_hub.repositories(documents)) as address:
        yield address


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where downloads go; the tests of this file share it, as a user's would."""
    return tmp_path_factory.mktemp("hf-home")


def typed(line: str, folder: Path, address: str, home: Path) -> subprocess.CompletedProcess:
    """Run a line as a user types it, in this folder, with this hub."""
    command = [str(Path(sys.executable).with_name("sae-translate")), *line.split()[1:]]
    online = {k: v for k, v in os.environ.items()
              if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
              and not k.lower().endswith("_proxy")}
    environment = online | {"HF_ENDPOINT": address, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def pythia(hub, home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pythia")
    return folder, typed("sae-translate cache --model pythia-70m", folder, hub, home)


def test_cache_model_pythia_70m_is_complete_as_typed(pythia):
    folder, ran = pythia
    assert ran.returncode == 0, ran.stderr
    cache = ActivationCache(folder / "cache/pythia-70m-blocks.2.hook_resid_post")
    assert cache.manifest.model == "EleutherAI/pythia-70m" and cache.manifest.dataset == "NeelNanda/pile-10k"
    assert cache.n_documents == DOCUMENTS and not any(wrong for _, wrong in cache.verify())
    assert cache.tokenizer().decode(cache.tokens) == "".join(generate_documents("en", DOCUMENTS, 0))
    assert cache.activations().shape == (cache.n_tokens, 64)


def test_the_plan_is_shown_with_its_bytes_before_it_starts(pythia):
    folder, ran = pythia
    cache = ActivationCache(folder / "cache/pythia-70m-blocks.2.hook_resid_post")
    plan, result = ran.stdout.split("out:")
    assert "EleutherAI" not in plan and "pythia-70m (6 layers" in plan and f"{cache.n_tokens:,} tokens" in plan
    assert f"about {cache.n_bytes / 1e6:.1f} MB" in result


def test_what_was_downloaded_serves_without_a_network(pythia, home, tmp_path):
    began = time.monotonic()
    ran = typed("sae-translate cache --model pythia-70m --tokens 500 --json", tmp_path, "http://127.0.0.1:9", home)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["n_tokens"] == 500
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("line, says", [
    ("cache --model pythia-70m", "the model EleutherAI/pythia-70m is neither"),
    ("cache --model {model} --dataset roneneldan/TinyStories", "the dataset roneneldan/TinyStories is neither"),
])
def test_a_hub_name_without_network_is_one_line_and_soon(tmp_path, line, says):
    import tiny

    model = tiny.model_folder(tmp_path / "model", tiny.neox())
    began = time.monotonic()
    ran = typed(f"sae-translate {line.format(model=model)} --out c", tmp_path, "http://127.0.0.1:9", tmp_path / "home")
    assert ran.returncode == 2 and says in ran.stderr and "could not be reached" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert not (tmp_path / "c").exists() and time.monotonic() - began < 60


@pytest.mark.parametrize("line, says", [
    ("cache --model pythia-71m", "no model 'pythia-71m', and there is no such folder. did you mean pythia-"),
    ("cache --model pythia-70m --dataset nobody/nothing", "the hub has no dataset 'nobody/nothing'"),
])
def test_what_the_hub_has_not_is_one_line(hub, home, tmp_path, line, says):
    ran = typed(f"sae-translate {line} --out c", tmp_path, hub, home)
    assert ran.returncode == 2 and says in ran.stderr, ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert not (tmp_path / "c").exists()


def labels_ready() -> bool:
    return importlib.util.find_spec("sae_translate.cli.label") is not None


@pytest.mark.skipif(not labels_ready(), reason="the label verb is not there yet")
def test_label_sae_is_complete_as_typed(hub, home, tmp_path):
    ran = typed("sae-translate label --sae pythia-70m-deduped-res-sm/blocks.3.hook_resid_post", tmp_path, hub, home)
    assert ran.returncode == 0, ran.stderr
    caches = [path.parent for path in (tmp_path / "cache").rglob("manifest.json")]
    assert len(caches) == 1
    manifest = ActivationCache(caches[0]).manifest
    assert manifest.model == "EleutherAI/pythia-70m-deduped" and manifest.prepend_bos and manifest.context_size == 128
    assert manifest.saes[0].name == "pythia-70m-deduped-res-sm/blocks.3.hook_resid_post"
    assert list((tmp_path / "labels").rglob("labels.csv"))
    shutil.rmtree(tmp_path / "cache")
