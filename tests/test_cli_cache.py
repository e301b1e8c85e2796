"""The cache and verify commands: what they print, what they leave behind, and how they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import typer
from typer.testing import CliRunner

from activation_cache import layout
from activation_cache.errors import UserError
from activation_cache.shards import ActivationCache
from sae_translate.cli import cache, progress, verify

app = typer.Typer()
app.command("cache")(cache.run)
app.command("verify")(verify.run)
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny.model_folder(folder / "model", tiny.llama())
    (folder / "text.json").write_text(json.dumps(tiny.documents(n=40)))
    (folder / "nothing.txt").write_text("\n")
    (folder / "columns.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (folder / "notes").mkdir()
    (folder / "notes/mine.txt").write_text("x")
    tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model")
    tiny.sae_folder(folder / "wide", d_in=48, hook_name=HOOK)
    return folder


@pytest.fixture
def here(inputs, tmp_path, monkeypatch):
    """The inputs, as seen from an empty working folder."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str):
    result = CliRunner().invoke(app, line.split(), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_default_folder_is_named_after_model_and_hook_of_the_middle_layer(here):
    out = run("cache --model model --dataset text.json").stdout
    opened = ActivationCache(here / "cache/model-blocks.1.hook_resid_post")
    assert opened.manifest.hook_names == (HOOK,)
    assert "note" in out and "that is all the text there is" in out
    assert f"{opened.n_tokens:,} tokens in {opened.n_contexts:,} contexts of 40 documents" in out
    assert out.index("about") < out.index("tokens/s")


def test_an_sae_brings_its_model_hook_context_and_bos(here):
    run("cache --sae sae --dataset text.json --out c --tokens 300")
    manifest = ActivationCache("c").manifest
    assert (manifest.model, manifest.hook_names) == (str((here / "model").resolve()), (HOOK,))
    assert manifest.context_size == 16 and manifest.prepend_bos and manifest.n_tokens == 300
    assert not manifest.recorded_hooks and manifest.saes[0].architecture == "topk"


def test_a_dry_run_says_the_same_and_writes_nothing(here):
    before = set(here.iterdir())
    dry = run("cache --model model --dataset text.json --out c --dry-run").stdout
    assert set(here.iterdir()) == before
    plan, cost = dry[: dry.index("local:")], dry[dry.index("local:") :]
    assert run("cache --model model --dataset text.json --out c").stdout.startswith(plan)
    assert f"bytes:     {ActivationCache('c').n_bytes:,} of shards\n" in cost
    assert [line.split(":")[0] for line in cost.splitlines()] == ["local", "torchrun", "ray", "bytes"]


def test_json_is_one_object_with_what_was_recorded(here):
    told = json.loads(run("cache --sae sae --dataset text.json --out c --json").stdout)
    opened = ActivationCache("c")
    assert told["out"] == "c" and told["recorded"] and told["key"] == opened.manifest.key
    assert told["n_tokens"] == opened.n_tokens and told["saes"] == ["sae"] and told["hook_names"] == [HOOK]
    dry = json.loads(run("cache --sae sae --dataset text.json --out d --json --dry-run").stdout)
    assert not dry["recorded"] and dry["key"] == told["key"]
    assert set(dry["seconds"]) == {"local", "torchrun", "ray"} and dry["n_bytes"] == told["n_bytes"] == opened.n_bytes


def test_resume_continues_and_overwrite_replaces(here):
    run("cache --model model --dataset text.json --out c")
    with pytest.raises(UserError, match="continue it with --resume, replace it with --overwrite"):
        run("cache --model model --dataset text.json --out c")
    assert "of them there before" in run("cache --model model --dataset text.json --out c --resume").stdout
    run("cache --model model --dataset text.json --out c --overwrite --tokens 50")
    assert ActivationCache("c").n_tokens == 50


def test_several_hooks_and_saes_in_one_pass_are_what_separate_runs_record(here):
    """The same arrays to the last bit: hooks with and without an SAE, at two depths, inside a block; one SAE silent."""
    for name, architecture, hook in (("shallow", "topk", "blocks.0.hook_resid_post"), ("silent", "jumprelu", HOOK)):
        tiny.sae_folder(here / name, architecture, seed=1, hook_name=hook, context_size=16, prepend_bos=True)
    saes = ("sae", "shallow", "silent")
    hooks = ["blocks.0.hook_resid_post", HOOK, "blocks.1.hook_mlp_out"]
    line = "cache --model model --dataset text.json --activations --context-size 16 --bos"
    told = run(f"{line} --out all " + " ".join([f"--sae {s}" for s in saes] + [f"--hook-name {h}" for h in hooks]))
    assert all(f"{name} (" in told.stdout for name in saes)
    together = ActivationCache("all")
    assert together.manifest.hook_names == tuple(hooks) and [s.name for s in together.manifest.saes] == list(saes)
    for hook in hooks:
        run(f"{line} --out {hook} --hook-name {hook}")
        np.testing.assert_array_equal(together.activations(hook), ActivationCache(hook).activations())
    for name in saes:
        run(f"{line} --out only-{name} --sae {name}")
        alone = ActivationCache(f"only-{name}")
        assert (together.latents(name) != alone.latents()).nnz == 0 and (alone.latents().nnz > 0) == (name != "silent")
        for part, values in vars(alone.statistics()).items():
            np.testing.assert_array_equal(vars(together.statistics(name))[part], values)


def test_co_occurrence_is_recorded_at_the_lags_and_in_the_memory_that_are_asked_for(here):
    told = run("cache --sae sae --dataset text.json --out c --cooccurrence --lags 1,3 --cooccurrence-mb 1").stdout
    assert "sae: co-occurrence of all of 256 latents at lags 1, 3, up to 528,392 bytes more" in told
    opened = ActivationCache("c")
    assert opened.manifest.cooccurrence == layout.CooccurrenceEntry((1, 3), 1)
    assert opened.cooccurrence(3).covered == 1 and "all as recorded" in run("verify c").stdout
    run("cache --sae sae --dataset text.json --out d --cooccurrence")
    assert ActivationCache("d").manifest.cooccurrence == layout.CooccurrenceEntry()
    with pytest.raises(UserError, match="differs in format, cooccurrence"):
        run("cache --sae sae --dataset text.json --out d --resume")


def test_ranks_share_a_cache_and_only_the_first_speaks(here, monkeypatch):
    monkeypatch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        said.append(run("cache --sae sae --dataset text.json --out ranks --engine torchrun"))
    run("cache --sae sae --dataset text.json --out one")
    assert said[0].output == "" and "this rank's, of" in said[1].stdout
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*") if path.is_file())
    assert len(files) > 8 and all((Path("one") / f).read_bytes() == (Path("ranks") / f).read_bytes() for f in files)
    with pytest.raises(UserError, match="--overwrite is not for --engine torchrun"):
        run("cache --sae sae --dataset text.json --out ranks --engine torchrun --overwrite")
    monkeypatch.delenv("RANK")
    with pytest.raises(UserError, match="start it with `torchrun"):
        run("cache --sae sae --dataset text.json --out ranks --engine torchrun")


def test_generated_stories_are_a_dataset_in_two_languages(here):
    english, german = (cache.generated_documents(f"stories:{language}", 3) for language in ("en", "de"))
    assert next(english) != next(german)
    assert cache.generated_documents("text.json", 0) is None and cache.generated_documents(None, 0) is None
    with pytest.raises(UserError, match="did you mean"):
        cache.generated_documents("stories:fr", 0)


REFUSED = {
    "no such model": ("--model ./nowhere --dataset text.json", "no such model folder: ./nowhere"),
    "no model": ("--dataset text.json", "no model given"),
    "no such dataset": ("--model model --dataset ./no.json", "no such dataset file or folder: ./no.json"),
    "empty dataset": ("--model model --dataset nothing.txt", "is empty"),
    "no text column": ("--model model --dataset columns.jsonl", "it has question, answer; choose one with --column"),
    "too few tokens": ("--model model --dataset text.json --tokens 99999", "99,999 tokens were asked for, but"),
    "unknown hook": ("--model model --dataset text.json --hook-name blocks.1.hook_resid_pots", f"did you mean {HOOK}"),
    "unfit sae": ("--model model --dataset text.json --sae wide", "reads 48 dimensions, but"),
    "contradicted sae": ("--dataset text.json --sae sae --context-size 8", "contradicts the SAE"),
    "no such sae": ("--dataset text.json --sae ./nowhere", "no such SAE folder"),
    "no such device": ("--model model --dataset text.json --device warp", "device 'warp' is not there"),
    "no such dtype": ("--model model --dataset text.json --dtype int3", "choose one of float32, bfloat16, float16"),
    "foreign folder": ("--model model --dataset text.json --out notes --overwrite", "holds something else"),
    "both": ("--model model --dataset text.json --overwrite --resume", "contradict each other"),
    "lags alone": ("--dataset text.json --sae sae --lags 1,2", "go with --cooccurrence: add it"),
    "lags of words": ("--dataset text.json --sae sae --cooccurrence --lags one", "needed whole numbers with commas"),
    "no latents": ("--model model --dataset text.json --cooccurrence", "--cooccurrence is of latents: give an --sae"),
    "bad numbers": ("--model model --dataset text.json --context-size 0", "must be at least 1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(here, what):
    line, says = REFUSED[what]
    line = line if "--out" in line else f"{line} --out c"
    before = set(here.rglob("*"))
    with pytest.raises(UserError) as caught:
        run(f"cache {line}")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert set(here.rglob("*")) == before


def test_verify_passes_a_whole_cache_and_names_a_bad_shard(here):
    run("cache --sae sae --dataset text.json --out c")
    assert "all as recorded" in run("verify c").stdout
    path = here / "c" / layout.statistics_file(0)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(UserError, match=r"statistics/0\.safetensors does not match its sha256"):
        run("verify c")
    with pytest.raises(UserError, match="no such folder"):
        run("verify d")
    with pytest.raises(UserError, match="is not an activation cache"):
        run("verify notes")


def test_progress_off_a_terminal_is_a_plain_line_a_tenth(capsys):
    with progress.bar("work", 100, "tokens") as advance:
        for done in range(1, 101):
            advance(done, "note")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[-1].startswith("work: 100 of 100 tokens")
    with progress.bar("work", 100, "tokens", quiet=True) as advance:
        advance(50, "note")
    assert capsys.readouterr().err == ""


def test_a_mistake_ends_the_process_with_2_and_one_line_and_help_needs_no_torch(tmp_path):
    command = str(Path(sys.executable).with_name("sae-translate"))
    bad = subprocess.run([command, "cache", "--model", "./nowhere"], cwd=tmp_path, capture_output=True, text=True,
                         env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert bad.returncode == 2 and bad.stdout == "" and bad.stderr == "sae-translate: no such model folder: ./nowhere\n"
    loaded = "import sys; import sae_translate.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


def test_real_stories_are_recorded_by_the_issues_own_line(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, text = shared / "models/stories260K", shared / "text/tinystories/tinystories_1000.json"
    run(f"cache --model {model} --dataset {text} --hook-name blocks.2.hook_resid_post --tokens 20000")
    opened = ActivationCache("cache/stories260K-blocks.2.hook_resid_post")
    assert opened.n_tokens == 20000 and opened.manifest.prepend_bos
    first = json.loads(text.read_text())[0]
    of_first = opened.tokens[: opened.context_offsets[(opened.document_ids == 0).sum()]]
    assert opened.tokenizer().decode(of_first).split() == first.split()
