"""Every kind of dataset file gives the documents that were put into it."""

import csv
import gzip
import json
import uuid

import pyarrow as pa
import pyarrow.parquet
import pytest

from activation_cache.errors import UserError
from activation_cache.places import place, put
from activation_cache.text import load_documents

DOCUMENTS = ["The cat sat.\nIt purred.", 'Ein Hund, "der" bellt.', "x", "naïve 猫"]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {
    "paragraphs.txt": lambda p: p.write_text("\n\n".join(DOCUMENTS), encoding="utf-8"),
    "marked.txt": lambda p: p.write_text("\n<|endoftext|>\n".join(DOCUMENTS), encoding="utf-8"),
    "strings.json": lambda p: p.write_text(json.dumps(DOCUMENTS)),
    "objects.json": lambda p: p.write_text(json.dumps([{"id": i, "text": d} for i, d in enumerate(DOCUMENTS)])),
    "strings.jsonl": lambda p: p.write_text("\n".join(map(json.dumps, DOCUMENTS))),
    "objects.jsonl": lambda p: p.write_text("\n".join(json.dumps({"story": d, "title": "t"}) for d in DOCUMENTS)),
    "rows.csv": lambda p: write_csv(p, [{"id": i, "content": d} for i, d in enumerate(DOCUMENTS)]),
    "rows.parquet": lambda p: pyarrow.parquet.write_table(pa.table({"n": range(4), "text": DOCUMENTS}), p),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_documents_come_out_as_they_went_in(tmp_path, name, compressed):
    path = tmp_path / name
    WRITERS[name](path)
    if compressed:
        zipped = tmp_path / f"{name}.gz"
        zipped.write_bytes(gzip.compress(path.read_bytes()))
        path = zipped
    assert list(load_documents(path)) == DOCUMENTS


@pytest.mark.parametrize("name", WRITERS)
def test_documents_under_a_url_are_those_of_the_same_files_on_disk(tmp_path, name):
    WRITERS[name](tmp_path / name)
    store = place(f"memory://{uuid.uuid4().hex}")
    put(store / "inner" / name, (tmp_path / name).read_bytes())
    put(store / f"inner/z{name}.gz", gzip.compress((tmp_path / name).read_bytes()))
    assert list(load_documents(str(store / "inner" / name))) == DOCUMENTS
    assert list(load_documents(str(store))) == DOCUMENTS * 2


def test_what_cannot_be_read_under_a_url_is_told(monkeypatch):
    with pytest.raises(UserError, match="no such dataset file or folder: memory://nowhere/a"):
        load_documents("memory://nowhere/a.txt")
    path = place(f"memory://{uuid.uuid4().hex}/text.json")
    put(path, b"[1]")
    with pytest.raises(UserError, match="holds a int where a string or an object"):
        list(load_documents(str(path)))

    def refuse(*_, **__):
        raise KeyError("no credentials")

    monkeypatch.setattr(type(path.fs), "_open", refuse)
    with pytest.raises(UserError, match=r"could not be read as \.json: KeyError: 'no credentials'"):
        list(load_documents(str(path)))
    monkeypatch.setattr(type(path.fs), "exists", refuse)
    with pytest.raises(UserError, match="cannot be reached: KeyError: 'no credentials'"):
        load_documents(str(path))


def test_a_txt_without_blank_lines_holds_a_document_a_line(tmp_path):
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    assert list(load_documents(tmp_path / "lines.txt")) == ["one", "two", "three"]


def test_sentences_of_a_leipzig_corpus_and_verses_of_a_bible_come_without_their_numbers(tmp_path):
    leipzig = tmp_path / "deu_wikipedia_2021_10K-sentences.txt"
    leipzig.write_text("1\tAm Anfang war das Wort.\n2\t1984 erschien es neu.\n", encoding="utf-8")
    assert list(load_documents(leipzig)) == ["Am Anfang war das Wort.", "1984 erschien es neu."]
    bible = tmp_path / "bible.txt"
    bible.write_text("### Genesis\n\n[1:1]  In the beginning\n[1:2] Now\n\n### Exodus\n\n[1:1] These\n")
    assert list(load_documents(bible)) == ["In the beginning", "Now", "These"]
    other = tmp_path / "other.txt"
    other.write_text("1\tone\nnot numbered\n")
    assert list(load_documents(other)) == ["1\tone", "not numbered"]


def test_a_tsv_gives_the_column_of_this_number(tmp_path):
    pairs = tmp_path / "deu-eng.tsv"
    pairs.write_text("Run!\tLauf!\nStop!\tHalt!\n")
    assert list(load_documents(pairs, column="2")) == ["Lauf!", "Halt!"]
    with pytest.raises(UserError, match="columns without names: choose one by its number, counted from 1, not 'de'"):
        list(load_documents(pairs, column="de"))
    with pytest.raises(UserError, match="row 1 has 2 columns and column 3 was asked for"):
        list(load_documents(pairs, column="3"))


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.txt").write_text("third")
    (tmp_path / "a.json").write_text('["first", "second"]')
    (tmp_path / "readme.md").write_text("not data")
    assert list(load_documents(tmp_path)) == ["first", "second", "third"]


def test_the_column_asked_for_is_taken_before_the_usual_one(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "no", "summary": "yes"}\n')
    assert list(load_documents(tmp_path / "d.jsonl", column="summary")) == ["yes"]


def test_a_single_column_of_strings_is_the_text_whatever_its_name(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"id": 1, "utterance": "yes"}\n')
    assert list(load_documents(tmp_path / "d.jsonl")) == ["yes"]


def test_empty_documents_are_left_out(tmp_path):
    (tmp_path / "d.json").write_text('["a", "", "  \\n", "b"]')
    assert list(load_documents(tmp_path / "d.json")) == ["a", "b"]


BAD = {
    "no text column": ("d.jsonl", '{"question": "q", "answer": "a"}\n', {}, "it has question, answer"),
    "no such column": ("d.jsonl", '{"text": "q"}\n', dict(column="txt"), "did you mean text?"),
    "numbers where text": ("d.jsonl", '{"text": 3}\n', {}, "holds a int where text was needed"),
    "an object": ("d.json", '{"text": "q"}', {}, "needed a list"),
    "broken json": ("d.json", '["q"', {}, "could not be read as .json"),
    "nothing": ("d.txt", "\n\n", {}, "is empty"),
    "unknown kind": ("d.docx", "x", {}, ".parquet"),
    "no gzip": ("d.txt.gz", "plain", {}, "could not be read as .txt.gz"),
    "no parquet": ("d.parquet", "plain", {}, "could not be read as .parquet"),
    "a split of a file": ("d.txt", "x", dict(split="train"), "--split"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_dataset_that_cannot_be_read_says_why_in_one_line(tmp_path, name):
    file, content, options, says = BAD[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as caught:
        list(load_documents(tmp_path / file, **options))
    assert says in str(caught.value)


def test_a_parquet_without_a_text_column_names_those_it_has(tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": [1], "b": ["x"], "c": ["y"]}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match="it has a, b, c"):
        list(load_documents(tmp_path / "d.parquet"))


@pytest.mark.parametrize("missing", ["./nowhere", "/nowhere/at/all", "stories.json", "a/b/c"])
def test_a_missing_file_is_not_looked_for_on_the_hub(missing):
    with pytest.raises(UserError, match="no such dataset file or folder"):
        list(load_documents(missing))


def test_the_real_stories_are_a_thousand_documents(shared):
    assert len(list(load_documents(shared / "text/tinystories/tinystories_1000.json"))) == 1000
