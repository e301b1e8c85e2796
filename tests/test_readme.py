"""What the README shows is what happens."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import sae_translate
from sae_translate.cli.demo import MODEL, SAE
from sae_translate.demo.stories import generate_documents

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_as_written_in_five_lines(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(code.strip().splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in generate_documents("en", 400, 11)), encoding="utf-8"
    )
    Path("sae").symlink_to(SAE)
    monkeypatch.setitem(sae_translate.__dict__, "record", _with_the_embedded_model(sae_translate.record))
    exec(code.replace("500_000", "12_000"), {})
    labels = sae_translate.load_labels("labels")
    assert len(labels.chosen()) == labels.summary["n_live"] > 100
    assert Path("report.html").stat().st_size < 10e6


def _with_the_embedded_model(record):
    """The embedded SAE names its model by the path in this repository: hand it over wherever the test runs."""
    return lambda *given, **named: record(*given, model=str(MODEL), **named)


@pytest.mark.parametrize("link", re.findall(r"!?\[[^\]]*\]\((?!http)([^)]+)\)", README))
def test_every_local_link_of_the_readme_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_the_tree_in_the_readme_names_folders_that_exist():
    tree = README.split("## The tree")[1]
    names = re.findall(r"^ {4}( *)([a-z_]+)/", tree, flags=re.M)
    assert len(names) > 10
    for indent, name in names:
        assert (ROOT / "sae_translate" / name if indent else ROOT / name).is_dir(), name


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == sae_translate.__version__
