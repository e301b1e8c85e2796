"""A damaged cache is mended to the bytes it was recorded with, and nothing sound is touched."""

import json
import os

import pytest
import tiny
import typer
from typer.testing import CliRunner

from activation_cache import layout, shards
from activation_cache import repair as mending
from activation_cache.errors import UserError
from activation_cache.places import locked
from activation_cache.shards import ActivationCache
from sae_translate.cli import cache, verify

app = typer.Typer()
app.command("cache")(cache.run)
app.command("verify")(verify.run)
HOOK = "blocks.1.hook_resid_post"
SHARD, SUMMARY, PAIRS = layout.shard_file(1), layout.statistics_file(0), layout.cooccurrence_file(0, 2)
WORDS = f"{layout.TOKENIZER}/tokenizer.json"


def run(line: str) -> str:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A model, an SAE, a text and a cache `c` of several shards."""
    folder = tmp_path_factory.mktemp("recorded")
    tiny.model_folder(folder / "model", tiny.llama())
    tiny.sae_folder(folder / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, model_name="model")
    (folder / "text.json").write_text(json.dumps(tiny.documents(n=40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
        run(f"cache --model {folder}/model --sae {folder}/sae --dataset {folder}/text.json --tokens 500 --activations "
            f"--cooccurrence --lags 1,2 --out {folder}/c")
    return folder


@pytest.fixture
def there(recorded, tmp_path, monkeypatch):
    """A copy of all of it in an empty working folder; its cache still names the originals."""
    import shutil

    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("activation_cache.plan.TOKENS_PER_SHARD", 160)
    return tmp_path / "c"


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path, where=-9):
    altered = bytearray(path.read_bytes())
    altered[where] ^= 1
    path.write_bytes(altered)


def sidecar(path):
    return path.with_suffix(".json")


def lose_both(path):
    path.unlink()
    sidecar(path).unlink()


DAMAGES = {
    "a truncated shard": (SHARD, truncate),
    "an empty shard": (SHARD, lambda path: os.truncate(path, 0)),
    "a flipped bit in the latents": (SHARD, flip),
    "a flipped bit in the header": (SHARD, lambda path: flip(path, 12)),
    "a missing shard": (SHARD, lambda path: path.unlink()),
    "a shard without sidecar": (SHARD, lambda path: sidecar(path).unlink()),
    "a shard gone with its sidecar": (SHARD, lose_both),
    "a torn sidecar": (SHARD, lambda path: truncate(sidecar(path))),
    "a sidecar with another hash": (
        SHARD, lambda path: sidecar(path).write_text(sidecar(path).read_text().replace('sha256": "', 'sha256": "0'))),
    "a sidecar with other counts": (
        SHARD, lambda path: sidecar(path).write_text(sidecar(path).read_text().replace('n_tokens": ', 'n_tokens": 1'))),
    "truncated statistics": (SUMMARY, truncate),
    "a flipped bit in the statistics": (SUMMARY, flip),
    "missing statistics": (SUMMARY, lose_both),
    "truncated co-occurrence": (PAIRS, truncate),
    "a flipped bit in the co-occurrence": (PAIRS, flip),
    "missing co-occurrence": (PAIRS, lose_both),
    "a flipped bit in the tokenizer": (WORDS, flip),
    "a missing tokenizer": (WORDS, lambda path: path.unlink()),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_is_named_and_mended_to_the_recorded_bytes_and_nothing_else_is_written(there, what):
    file, damage = DAMAGES[what]
    before = content(there)
    damage(there / file)
    times = {p: p.stat().st_mtime_ns for p in there.rglob("*") if p.is_file()}
    assert [name for name, wrong in shards.check(there) if wrong] == [file]
    with pytest.raises(UserError, match=r"\.(json|safetensors)"):
        run("verify c")
    out = run("verify c --repair")
    assert out.splitlines()[0] == f"repaired {file}" and "all as recorded" in out and out.count("repaired") == 1
    assert content(there) == before
    mended = {there / file, sidecar(there / file)}
    assert {p for p, then in times.items() if p.stat().st_mtime_ns != then} <= mended


def test_several_damages_are_all_named_and_only_their_shards_computed(there, monkeypatch):
    before, computed, compute = content(there), [], mending.compute_shard
    monkeypatch.setattr(mending, "compute_shard", lambda plan, i: computed.append(i) or compute(plan, i))
    truncate(there / layout.shard_file(0))
    lose_both(there / layout.shard_file(2))
    flip(there / SUMMARY)
    flip(there / WORDS)
    with pytest.raises(UserError, match="4 files are bad"):
        run("verify c")
    told = json.loads(run("verify c --repair --json"))
    assert sorted(told["repaired"]) == sorted([layout.shard_file(0), layout.shard_file(2), WORDS, SUMMARY])
    assert told["bad"] == {} and computed == [0, 2] and content(there) == before


def test_a_sound_cache_and_damaged_statistics_need_no_model(there, monkeypatch):
    before = content(there)

    def no_plan():
        raise AssertionError("nothing is to be loaded")

    assert list(mending.repair(there, no_plan)) == []
    flip(there / SUMMARY)
    lose_both(there / PAIRS)
    assert list(mending.repair(there, no_plan)) == [SUMMARY, PAIRS]
    assert content(there) == before


def test_a_repair_that_is_interrupted_goes_on_where_it_was(there):
    before = content(there)
    for index in (0, 1, 2):
        truncate(there / layout.shard_file(index))

    def plan():
        return mending_plan(there)

    first = mending.repair(there, plan)
    assert next(first) == layout.shard_file(0)
    first.close()
    assert list(mending.repair(there, plan)) == [layout.shard_file(1), layout.shard_file(2)]
    assert content(there) == before


def mending_plan(folder):
    from activation_cache.plan import plan_recording

    return plan_recording(mending.recording_config(shards.read_manifest(folder)))


def test_what_has_moved_is_asked_for_and_taken_from_where_it_is_given(there):
    before = content(there)
    elsewhere = {"model": "/elsewhere/model", "dataset": "/elsewhere/text.json"}
    raw = json.loads((there / layout.MANIFEST).read_text()) | elsewhere
    raw["saes"][0]["source"] = "/elsewhere/sae"
    (there / layout.MANIFEST).write_text(json.dumps(raw))
    moved = content(there)
    flip(there / SHARD)
    line = "verify c --repair"
    for option, value in (("--model", "model"), ("--dataset", "text.json"), ("--sae", "sae")):
        with pytest.raises(UserError, match=rf"/elsewhere/{value}, .* is not here: say where it is with {option}"):
            run(line)
        line += f" {option} {value}"
    assert "repaired" in run(line)
    assert content(there) == moved and content(there)[SHARD] == before[SHARD]


def test_another_model_text_or_sae_never_mends_a_cache(there):
    tiny.model_folder(there.parent / "other" / "model", tiny.llama(seed=1))
    tiny.sae_folder(there.parent / "other" / "sae", hook_name=HOOK, context_size=16, prepend_bos=True, seed=1,
                    model_name="model")
    (there.parent / "other" / "text.json").write_text(json.dumps(tiny.documents(n=40, seed=1)))
    flip(there / SHARD)
    damaged = content(there)
    for option, path, field in (("--model", "model", "model_identity"), ("--dataset", "text.json", "dataset_identity"),
                                ("--sae", "sae", "saes")):
        with pytest.raises(UserError, match=f"differs in {field}.*: give the --model"):
            run(f"verify c --repair {option} other/{path}")
    with pytest.raises(UserError, match="2 SAEs were given for a cache of 1"):
        run("verify c --repair --sae sae --sae sae")
    assert content(there) == damaged


def test_a_shard_that_comes_out_otherwise_than_recorded_is_refused_and_left_alone(there, monkeypatch):
    compute = mending.compute_shard

    def rounded_otherwise(plan, index):
        arrays, saturated = compute(plan, index)
        return arrays | {"latents.0.values": arrays["latents.0.values"] * 2}, saturated

    monkeypatch.setattr(mending, "compute_shard", rounded_otherwise)
    flip(there / SHARD)
    damaged = content(there)
    with pytest.raises(UserError, match="computed again it has other bytes than recorded"):
        run("verify c --repair")
    assert content(there) == damaged


def test_a_cache_being_written_is_not_repaired(there):
    flip(there / SHARD)
    with locked(there), pytest.raises(UserError, match="another process is writing"):
        run("verify c --repair")


def test_options_of_a_repair_without_repair_are_refused(there):
    with pytest.raises(UserError, match="--model is only of use with --repair"):
        run("verify c --model model")


def test_an_interrupted_recording_is_completed_by_a_repair(there):
    before = content(there)
    last = ActivationCache(there).manifest.n_shards - 1
    for index in (last, last - 1):
        lose_both(there / layout.shard_file(index))
    lose_both(there / SUMMARY)
    run("verify c --repair")
    assert content(there) == before
