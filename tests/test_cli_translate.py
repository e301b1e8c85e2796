"""`train`, `translate` and `ablate` from end to end on the command line, and what they say to mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from activation_cache.errors import UserError
from sae_translate.cli.main import app
from sae_translate.demo.stories import generate_documents
from sae_translate.label.recorded import record
from sae_translate.translate.translator import load_translator

SMALL = {
    "backbone": {"name": "feedforward", "d_model": 16, "depth": 1, "dropout": 0.0},
    "training": {"steps": 4, "batch_size": 4, "evaluate_every": 2, "held_out": 3, "max_length": 30},
    "lm_order": 2,
}


def sae_translate(*arguments, **options) -> str:
    """What a command prints; a mistake of the user's is raised."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two texts, configurations, and a translator trained on them."""
    folder = tmp_path_factory.mktemp("translate")
    for name, seed in (("en", 1), ("de", 2)):
        (folder / f"{name}.json").write_text(json.dumps(list(generate_documents(name, 40, seed))))
    (folder / "small.json").write_text(json.dumps(SMALL))
    options = ["--config", folder / "small.json", "--out", folder / "translator", "--vocabulary", 60]
    told = sae_translate(
        "train", folder / "de.json", folder / "en.json", *options, "--log", folder / "log.jsonl", "--json"
    )
    (folder / "told.json").write_text(told)
    return folder


def test_training_writes_a_translator_and_a_line_a_look_and_leaves_no_state(place):
    told = json.loads((place / "told.json").read_text())
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4] and told["step"] == 4
    assert told["best"] == max(line["criterion"] for line in lines)
    assert told["n_items"] == [60, 60] and told["believed"] in (True, False)
    assert not (place / "translator.state").exists()


def test_a_file_and_standard_input_are_translated_line_by_line_and_unknown_words_stay_in_the_text(place):
    lines = ["Die Katze war klein. Sie ging nach Hause.", "", "Es war einmal"]
    (place / "lines.txt").write_text("\n".join(lines))
    from_file = sae_translate("translate", place / "translator", place / "lines.txt")
    piped = sae_translate("translate", place / "translator", input="\n".join(lines))
    assert from_file == piped and len(piped.splitlines()) == 3 and piped.splitlines()[1] == ""
    sae_translate("translate", place / "translator", place / "lines.txt", "--out", place / "told.txt")
    assert (place / "told.txt").read_text() == from_file
    english = set(" ".join(json.loads((place / "en.json").read_text())).lower().replace(".", " . ").split())
    known = [word for word in piped.split() if word in english]
    assert known, "no word of the target language was said"
    back = sae_translate("translate", place / "translator", "--reverse", "--json", input="the cat\n")
    assert json.loads(back)["source"] == "the cat"


def test_a_reference_gives_bleu_and_chrf_which_are_100_against_the_translation_itself(place):
    lines = list(json.loads((place / "de.json").read_text()))[:3]
    (place / "three.txt").write_text("\n".join(lines))
    sae_translate("translate", place / "translator", place / "three.txt", "--out", place / "itself.txt")
    command = ["translate", place / "translator", place / "three.txt", "--reference"]
    done = CliRunner().invoke(app, [str(one) for one in (*command, place / "itself.txt")])
    assert json.loads(done.stderr) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100), "lines": 3}
    with pytest.raises(UserError, match="has 40 lines and the text 3: a line each is needed"):
        (place / "forty.txt").write_text("x\n" * 40)
        sae_translate(*command, place / "forty.txt")


def test_a_language_model_of_weight_nothing_changes_nothing_and_a_strong_one_writes_what_it_has_read(
    place, tmp_path, monkeypatch
):
    from sae_translate.translate import neural_lm

    monkeypatch.setattr(neural_lm, "BRIEF", replace(neural_lm.BRIEF, steps=60, lr=1e-2, warmup=10))
    writer = SMALL | {"start": "random", "backbone": {"name": "xtransformers", "d_model": 16, "depth": 1, "heads": 2}}
    (tmp_path / "writer.json").write_text(json.dumps(writer))
    sae_translate("train", place / "de.json", place / "en.json", "--config", tmp_path / "writer.json",
                  "--vocabulary", 60, "--out", tmp_path / "writer")  # fmt: skip
    items = load_translator(tmp_path / "writer").items[1]
    sentence = " ".join([word for word in items if word.isalpha()][:5]) + " ."
    (tmp_path / "read.txt").write_text(f"{sentence}\n" * 20)

    def told(*options) -> str:
        command = ["translate", tmp_path / "writer", "--method", "beam", *options]
        return sae_translate(*command, input="die katze war klein\n").strip()

    plain = told()
    for kind in ("ngram", "neural"):
        model = ["--lm", tmp_path / "read.txt", "--lm-kind", kind, "--lm-weight"]
        assert told(*model, 0) == plain != sentence
        assert told(*model, 50, "--rerank", 1) == sentence
    with pytest.raises(UserError, match="--lm is for beam search: add --method beam"):
        sae_translate("translate", tmp_path / "writer", "--lm", tmp_path / "read.txt", input="die")
    with pytest.raises(UserError, match="unknown kind of language model 'gpt': choose one of ngram, neural"):
        told("--lm", tmp_path / "read.txt", "--lm-kind", "gpt")
    (tmp_path / "none.txt").write_text("zaphod")
    with pytest.raises(UserError, match=r"none.txt holds no word that the translator knows of .*en.json: give text"):
        told("--lm", tmp_path / "none.txt")


def test_an_interrupted_training_goes_on_to_the_same_translator(place, tmp_path, monkeypatch):
    from safetensors.numpy import load_file

    from sae_translate.cli import train

    arguments = ["train", place / "de.json", place / "en.json", "--config", place / "small.json",
                 "--vocabulary", 60, "--out", tmp_path / "again"]  # fmt: skip
    save = train.write_state

    def write_and_stop(*given):
        save(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_state", write_and_stop)
        assert CliRunner().invoke(app, [str(one) for one in arguments]).exit_code != 0
    assert not (tmp_path / "again").exists() and (tmp_path / "again.state").exists()
    with pytest.raises(UserError, match="was trained with another configuration or seed"):
        sae_translate(*arguments, "--resume", "--seed", 5)
    sae_translate(*arguments, "--resume")
    whole, again = (load_file(folder / "tensors.safetensors") for folder in (place / "translator", tmp_path / "again"))
    assert all((whole[name] == again[name]).all() for name in whole)


def test_the_latents_of_a_cache_are_a_language_too(place, tmp_path):
    model = tiny.model_folder(tmp_path / "model", tiny.neox())
    sae = tiny.sae_folder(tmp_path / "sae", hook_name="blocks.1.hook_resid_post", context_size=16, prepend_bos=False,
                          model_name=str(model))  # fmt: skip
    record(tmp_path / "cache", sae=str(sae), model=str(model), documents=tiny.documents(20))
    (tmp_path / "random.json").write_text(json.dumps(SMALL | {"start": "random"}))
    told = json.loads(sae_translate("train", tmp_path / "cache", place / "en.json", "--config",
                                    tmp_path / "random.json", "--out", tmp_path / "latents", "--json"))  # fmt: skip
    assert told["step"] == 4 and 8 < told["n_items"][0] <= 256
    assert load_translator(tmp_path / "latents").specs[0].modality == "weighted_sets"
    with pytest.raises(UserError, match="writes symbol after symbol and cannot write weighted_sets"):
        (tmp_path / "wrong.json").write_text(json.dumps({"start": "random", "training": SMALL["training"]}))
        sae_translate("train", tmp_path / "cache", place / "en.json", "--config", tmp_path / "wrong.json",
                      "--out", tmp_path / "new")  # fmt: skip


def test_what_a_user_does_wrong_is_said_in_one_line(place, tmp_path):
    train = ["train", place / "de.json", place / "en.json", "--config", place / "small.json"]
    with pytest.raises(UserError, match="exists: give another --out, or --overwrite"):
        sae_translate(*train, "--out", place / "translator")
    with pytest.raises(UserError, match="is not an interrupted training"):
        sae_translate(*train, "--out", tmp_path / "new", "--resume")
    (tmp_path / "wrong.json").write_text('{"backbone": {"nam": "tagger"}}')
    with pytest.raises(UserError, match=r"unknown setting 'nam'; .* did you mean name"):
        sae_translate("train", place / "de.json", place / "en.json", "--config", tmp_path / "wrong.json",
                      "--out", tmp_path / "new")  # fmt: skip
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        sae_translate("train", tmp_path / "empty.txt", place / "en.json", "--out", tmp_path / "new")
    with pytest.raises(UserError, match="standard input is empty"):
        sae_translate("translate", place / "translator", input="")
    with pytest.raises(UserError, match="is not a translator folder"):
        sae_translate("translate", tmp_path, input="text")
    with pytest.raises(UserError, match="unknown decoding method 'best'"):
        sae_translate("translate", place / "translator", "--method", "best", input="text")
    with pytest.raises(UserError, match="has no beam search: choose greedy"):
        sae_translate("translate", place / "translator", "--method", "beam", input="die")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def grid(tmp_path) -> Path:
    """A grid of eight trainings of two steps."""
    config = {
        "pairs": ["markov:6"], "sizes": [1000], "seeds": 1, "losses": ["pseudo_parallel", "denoise"],
        "without_noise": True, "starts": ["alignment", "random"], "backbones": ["feedforward"],
        "backbone": {"d_model": 8, "depth": 1},
        "training": {"steps": 2, "batch_size": 4, "evaluate_every": 2, "held_out": 2, "max_length": 60},
    }  # fmt: skip
    (tmp_path / "grid.json").write_text(json.dumps(config))
    return tmp_path


def test_an_ablation_is_a_line_a_training_and_is_not_done_twice(grid):
    out = grid / "rows.jsonl"
    command = ["ablate", grid / "grid.json", "--out", out]
    planned = json.loads(sae_translate(*command, "--dry-run", "--json"))
    assert planned == {"trainings": 8, "waiting": 8} and not out.exists()
    tables = json.loads(sae_translate(*command, "--json"))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert tables["trainings"] == len(rows) == 8
    assert {row["cell"]["design"] for row in rows} == {"all", "-pseudo_parallel", "-denoise", "-noise", "base",
                                                       "+pseudo_parallel", "+noise"}  # fmt: skip
    assert all(row["ceiling"] == pytest.approx(1) and row["chance"] < row["ceiling"] for row in rows)
    kept, last = out.read_text().splitlines()[:-1], rows[-1]
    out.write_text("".join(line + "\n" for line in kept) + '{"key": "cut of')
    sae_translate(*command)
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["key"] for row in again] == [row["key"] for row in rows]
    assert again[:-1] == rows[:-1] and again[-1]["score"] == last["score"]


@pytest.mark.parametrize(("key", "value", "message"), [
    ("losses", ["denois"], "unknown loss 'denois'"),
    ("pairs", ["markow:6"], "unknown pair 'markow'"),
    ("pairs", ["markov:x"], "a number of states or symbols of 2 or more was needed, not 'x'"),
    ("seeds", 0, "needs a pair, a size, a start, a backbone and a seed"),
])  # fmt: skip
def test_an_ablation_names_what_it_does_not_know(grid, key, value, message):
    config = json.loads((grid / "grid.json").read_text()) | {key: value}
    (grid / "wrong.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        sae_translate("ablate", grid / "wrong.json", "--out", grid / "rows.jsonl")
