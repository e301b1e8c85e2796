"""Laws of `sae-translate align`: both formats say the same, a mistake is one line and exit 2, nothing half-written."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sae_translate.cli.main import main


def run(capsys, monkeypatch, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sae-translate", "align", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def cloud(n: int = 200, d: int = 20) -> np.ndarray:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(10, d))
    points = (centres[draw.integers(10, size=n)] + draw.normal(size=(n, d))) * np.linspace(1.2, 0.4, d)
    return points.astype(np.float32)


@pytest.fixture
def pair(tmp_path):
    """Vectors, and the same turned under other names: item i of one is item i of the other."""
    x = cloud()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0].astype(np.float32)
    np.savez(tmp_path / "a.npz", words=np.array([f"a{i}" for i in range(200)]), vectors=x)
    np.savez(tmp_path / "b.npz", words=np.array([f"b{i}" for i in range(200)]), vectors=x @ turn)
    lines = [f"b{i} " + " ".join(map(repr, map(float, row))) for i, row in enumerate(x @ turn)]
    (tmp_path / "b.vec").write_text("\n".join(["200 20", *lines, ""]), encoding="utf-8")
    return tmp_path


def test_a_turned_space_gives_its_dictionary_from_either_format(pair, capsys, monkeypatch):
    tables = []
    for target in ("b.npz", "b.vec"):
        out = pair / f"out-{target}"
        code, printed, _ = run(capsys, monkeypatch, pair / "a.npz", pair / target, "--out", out, "-k", 3)
        assert code == 0 and "believed:" in printed
        tables.append(pd.read_csv(out / "dictionary.csv"))
    first, second = tables
    assert list(first.columns) == ["source", "target", "rank", "score", "confidence"]
    best = first[first["rank"] == 1]
    assert (best.source.str[1:] == best.target.str[1:]).all() and len(best) == 200
    assert (first.target == second.target).all()


def test_the_map_on_disk_brings_both_sides_together(pair, capsys, monkeypatch):
    run(capsys, monkeypatch, pair / "a.npz", pair / "b.npz", "--out", pair / "out")
    saved = load_file(pair / "out" / "map.safetensors")
    sides = []
    for side, name in (("source", "a"), ("target", "b")):
        vectors = np.load(pair / f"{name}.npz")["vectors"]
        for mean in [0, *saved[f"{side}_means"]]:
            vectors = vectors - mean
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors @ saved[f"{side}_map"]
        sides.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert np.allclose((sides[0] * sides[1]).sum(1), 1, atol=1e-3)


def test_an_unrelated_space_is_not_believed_and_no_entry_is_trusted(pair, capsys, monkeypatch):
    noise = np.random.default_rng(5).normal(size=(200, 20)).astype(np.float32)
    np.savez(pair / "c.npz", words=np.array([f"c{i}" for i in range(200)]), vectors=noise)
    code, printed, _ = run(capsys, monkeypatch, pair / "a.npz", pair / "c.npz", "--out", pair / "out", "--json")
    told = json.loads(printed)
    assert code == 0 and told["verdict"]["believed"] is False and told["mean_confidence"] == 0
    assert (pd.read_csv(pair / "out" / "dictionary.csv").confidence == 0).all()


def test_an_alignment_is_replaced_only_when_asked(pair, capsys, monkeypatch):
    arguments = (pair / "a.npz", pair / "b.npz", "--out", pair / "out")
    assert run(capsys, monkeypatch, *arguments)[0] == 0
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert code == 2 and "--overwrite" in err
    assert run(capsys, monkeypatch, *arguments, "--overwrite")[0] == 0


def damaged(folder, kind):
    """A target file that cannot be read, of every kind."""
    path = folder / ("bad.vec" if kind.startswith("vec") else "bad.npz")
    x, words = cloud(), np.array([f"b{i}" for i in range(200)])
    if kind == "truncated":
        path.write_bytes((folder / "b.npz").read_bytes()[:500])
    elif kind == "nan":
        x[3, 4] = np.nan
        np.savez(path, words=words, vectors=x)
    elif kind == "zero":
        x[7] = 0
        np.savez(path, words=words, vectors=x)
    elif kind == "duplicates":
        words[9] = words[8]
        np.savez(path, words=words, vectors=x)
    elif kind == "lacks words":
        np.savez(path, vectors=x)
    elif kind == "lengths differ":
        np.savez(path, words=words[:5], vectors=x)
    elif kind == "empty":
        np.savez(path, words=words[:0], vectors=x[:0])
    elif kind == "vec header":
        path.write_text("hello\n", encoding="utf-8")
    elif kind == "vec row":
        path.write_text("2 3\nb0 1 2 3\nb1 1 2 x\n", encoding="utf-8")
    elif kind == "vec short":
        path.write_text("2 3\nb0 1 2 3\nb1 1 2\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "not a sound .npz"),
        ("nan", "first at row 3"),
        ("zero", "first at row 7"),
        ("duplicates", "'b8'"),
        ("lacks words", "lacks words"),
        ("lengths differ", "do not fit"),
        ("empty", "holds 0 items"),
        ("vec header", "count dimensions"),
        ("vec row", "line 3"),
        ("vec short", "line 3"),
        ("missing", "no file"),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing(pair, capsys, monkeypatch, kind, says):
    code, _, err = run(capsys, monkeypatch, pair / "a.npz", damaged(pair, kind), "--out", pair / "out")
    last = err.strip().splitlines()[-1]
    assert code == 2 and says in last and last.startswith("sae-translate: ")
    assert not (pair / "out").exists()


@pytest.mark.parametrize(("flag", "value", "says"), [("-k", 500, "smaller -k"), ("--retrieval", "csl", "csls"),
                                                     ("--items", 1, "--items"), ("--wide", 1, "--wide"),
                                                     ("--method", "contexts", "for text")])  # fmt: skip
def test_a_flag_that_cannot_be_is_one_line(pair, capsys, monkeypatch, flag, value, says):
    code, _, err = run(capsys, monkeypatch, pair / "a.npz", pair / "b.npz", "--out", pair / "out", flag, value)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert not (pair / "out").exists()


@pytest.fixture
def texts(tmp_path):
    """Two samples of a Markov language, the second in capitals, as text, with vectors of the words."""
    from sae_translate.languages.hmm import bijective, random_transitions, sample

    rng = np.random.default_rng(0)
    chain = random_transitions(40, rng)
    names = np.array([f"w{chr(97 + i // 20)}{chr(97 + i % 20)}" for i in range(40)])
    points = cloud(40)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0].astype(np.float32)
    for side, words, vectors in (("a", names, points), ("b", np.char.upper(names), points @ turn)):
        states = sample(bijective(chain, rng), 100, 200, rng)[0]
        lines = [" ".join(words[row]) for row in states]
        (tmp_path / f"{side}.json").write_text(json.dumps(lines), encoding="utf-8")
        np.savez(tmp_path / f"{side}.npz", words=words, vectors=vectors)
    return tmp_path


@pytest.mark.parametrize("method", [None, "decipher", "profiles"])
def test_two_texts_give_their_dictionary_without_vectors(texts, capsys, monkeypatch, method):
    out = texts / "out"
    code, printed, _ = run(capsys, monkeypatch, texts / "a.json", texts / "b.json", "--out", out, "-k", 3,
                           *(("--method", method) if method else ()))  # fmt: skip
    assert code == 0 and "\nbelieved:" in printed
    table = pd.read_csv(out / "dictionary.csv")
    best = table[table["rank"] == 1]
    assert (best.source.str.upper() == best.target).mean() > 0.95 and len(best) == 40
    assert table.confidence.between(0, 1).all()
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["method"] == (method or "contexts")


def test_text_and_vectors_are_used_together(texts, capsys, monkeypatch):
    code, printed, _ = run(capsys, monkeypatch, texts / "a.json", texts / "b.json", "--source-vectors", texts / "a.npz",
                           "--target-vectors", texts / "b.npz", "--out", texts / "out", "-k", 2, "--json")  # fmt: skip
    told = json.loads(printed)
    assert code == 0 and told["method"] == "together" and told["verdict"]["believed"]
    best = pd.read_csv(texts / "out" / "dictionary.csv").query("rank == 1")
    assert (best.source.str.upper() == best.target).mean() > 0.95


def test_safetensors_are_read_by_name_or_as_an_sae_s_decoder(pair, capsys, monkeypatch):
    from safetensors.numpy import save_file

    held = np.load(pair / "b.npz")
    save_file({"vectors": held["vectors"]}, pair / "named.safetensors", {"words": json.dumps(held["words"].tolist())})
    save_file({"W_dec": held["vectors"], "W_enc": held["vectors"].T.copy()}, pair / "sae.safetensors")
    for name, prefix in (("named", "b"), ("sae", "")):
        out = pair / name
        code, _, _ = run(capsys, monkeypatch, pair / "a.npz", pair / f"{name}.safetensors", "--out", out, "-k", 1)
        table = pd.read_csv(out / "dictionary.csv", dtype=str)
        assert code == 0 and (prefix + table.source.str[1:] == table.target).all()


def test_known_pairs_are_read_and_counted(pair, capsys, monkeypatch):
    (pair / "known.txt").write_text("a0 b0\na1 b1\n\nnot there\n", encoding="utf-8")
    code, printed, _ = run(capsys, monkeypatch, pair / "a.npz", pair / "b.npz", "--pairs", pair / "known.txt", "--json",
                           "--out", pair / "out")  # fmt: skip
    told = json.loads(printed)
    assert code == 0 and told["known_pairs"] == 2 and told["verdict"]["believed"]
    assert 0 <= told["hubness"]["share_never"] < 0.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a.npz", "b.json"), "two kinds"),
        (("a.json", "b.json", "--source-vectors", "a.npz"), "together"),
        (("a.json", "b.json", "--method", "profile"), "profiles"),
        (("a.json", "nowhere.json"), "nowhere.json"),
        (("a.npz", "b.npz", "--pairs", "bad.txt"), "line 1: 3 words"),
        (("a.npz", "b.npz", "--pairs", "strange.txt"), "no pair of words"),
        (("a.npz", "bad.safetensors"), "not a sound .safetensors"),
        (("a.npz", "b.npz", "--start", "signatur"), "signature"),
    ],
)
def test_what_does_not_go_together_is_one_line(texts, capsys, monkeypatch, arguments, says):
    (texts / "bad.txt").write_text("a b c\n", encoding="utf-8")
    (texts / "strange.txt").write_text("x y\n", encoding="utf-8")
    (texts / "bad.safetensors").write_bytes(b"nothing")
    files = [argument if argument.startswith("--") or "." not in argument else texts / argument
             for argument in arguments]  # fmt: skip
    code, _, err = run(capsys, monkeypatch, *files, "--out", texts / "out")
    last = err.strip().splitlines()[-1]
    assert code == 2 and says in last and last.startswith("sae-translate: ")
    assert not (texts / "out").exists()


def test_two_caches_are_matched_by_what_their_models_have_read(tmp_path, capsys, monkeypatch):
    """The same latents on stories that no one tells twice: every latent's partner is itself."""
    import sae_translate
    from sae_translate.cli.demo import MODEL, SAE
    from sae_translate.demo.stories import generate_documents

    for seed, name in enumerate("ab"):
        documents = list(generate_documents("en", 200, seed=400 + seed))
        sae_translate.record(tmp_path / name, sae=str(SAE), model=str(MODEL), documents=documents, tokens=12_000)
    capsys.readouterr()
    caches = (tmp_path / "a", tmp_path / "b")
    code, printed, _ = run(capsys, monkeypatch, *caches, "--method", "anchors", "--items", 300, "--out",
                           tmp_path / "out")  # fmt: skip
    assert code == 0 and "believed: " in printed and "NOT" not in printed
    best = pd.read_csv(tmp_path / "out" / "dictionary.csv").query("rank == 1")
    assert len(best) > 200 and (best.source == best.target).mean() > 0.8
    code, _, err = run(capsys, monkeypatch, caches[0], tmp_path / "out" / "dictionary.csv", "--method", "anchors",
                       "--out", tmp_path / "no")  # fmt: skip
    assert code == 2 and "two caches" in err and not (tmp_path / "no").exists()
