"""`sae-translate label`, `demo` and `--help` as a user types them: what they print, and one line for each mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sae_translate
from sae_translate.cli import main
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.demo.stories import generate_documents


def run(monkeypatch, *arguments) -> int:
    """Exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["sae-translate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "cache"
    documents = generate_documents("en", None, 3)
    sae_translate.record(folder, sae=str(SAE), model=str(MODEL), documents=documents, tokens=12_000)
    return folder


MISTAKES = {
    "nothing to label": (["label"], "give --sae"),
    "no such SAE": (["label", "--sae", "./nowhere/sae"], "nowhere/sae"),
    "no such cache": (["label", "--cache", "nowhere"], "nowhere"),
    "an unknown unit": (["label", "--sae", "x", "--text-unit", "syllable"], "choose one of auto, token, word"),
    "a vocabulary of one": (["label", "--sae", "x", "--vocabulary", "1"], "--vocabulary must be at least 2"),
    "a model beside a cache": (["label", "--cache", "c", "--model", "m"], "leave it out"),
    "unknown stories": (["label", "--cache", "{cache}", "--text", "stories:fr"], "stories"),
    "a text that is not there": (["label", "--cache", "{cache}", "--text", "./german.txt"], "german.txt"),
    "an SAE the cache lacks": (["label", "--cache", "{cache}", "--sae", "other"], "other"),
    "a report of nothing": (["report", "nowhere"], "no labels folder"),
    "a demo too short to decipher": (["demo", "--tokens", "100"], "too little to decipher"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_exit_2_and_leaves_nothing(mistake, monkeypatch, capfd, tmp_path, small_cache):
    monkeypatch.chdir(tmp_path)
    arguments, said = MISTAKES[mistake]
    assert run(monkeypatch, *(str(a).replace("{cache}", str(small_cache)) for a in arguments)) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("sae-translate: ")]
    assert len(lines) == 1 and said in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_what_recording_would_take_and_writes_nothing(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["label", "--sae", SAE, "--model", MODEL, "--dataset", "stories:en", "--tokens", "3000", "--dry-run"]
    assert run(monkeypatch, *map(str, arguments), "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["n_tokens"] == 3000 and not told["recorded"] and told["seconds"]["local"]["1"] > 0
    assert not list(tmp_path.iterdir())


def test_existing_labels_are_refused_before_any_work(monkeypatch, capfd, tmp_path, small_cache):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "notes.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert run(monkeypatch, "label", "--cache", small_cache, "--out", tmp_path / "labels", *more) == 2
        assert "labels" in capfd.readouterr().err
    assert (tmp_path / "labels" / "notes.txt").read_text() == "mine"


def test_an_altered_shard_is_named_and_not_read(monkeypatch, capfd, tmp_path, small_cache):
    import shutil

    folder = shutil.copytree(small_cache, tmp_path / "cache")
    shard = sorted((folder / "shards").glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    assert run(monkeypatch, "label", "--cache", folder, "--out", tmp_path / "labels") == 2
    assert shard.name in capfd.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_label_writes_the_folder_and_prints_its_summary_as_json(monkeypatch, capfd, tmp_path, small_cache):
    out = tmp_path / "labels"
    arguments = ["--out", out, "--vocabulary", 60, "--json"]
    assert run(monkeypatch, "label", "--cache", small_cache, *arguments) == 0
    printed = json.loads(capfd.readouterr().out)
    assert {row["method"] for row in printed["methods"]} == {"unpaired", "paired", "logit_lens", "random", "frequent"}
    assert sorted(p.name for p in out.iterdir()) == [
        "labels.csv", "labels.parquet", "latents.parquet", "report.html", "report.json", "summary.json",
    ]  # fmt: skip
    labels = sae_translate.load_labels(out)
    assert labels.summary["command"].startswith("sae-translate label --cache")
    assert str(SAE.parent) not in (out / "summary.json").read_text()


def test_help_names_every_verb():
    done = subprocess.run([sys.executable, "-m", "sae_translate.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("demo", "cache", "train-sae", "label", "report", "verify"))
