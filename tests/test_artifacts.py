"""Labels on disk: whole or not at all, nothing lost, nothing foreign overwritten."""

import json

import numpy as np
import pandas as pd
import pytest

from activation_cache.errors import UserError
from sae_translate import artifacts
from sae_translate.label.labels import Labels, load_labels


@pytest.fixture
def labels():
    table = pd.DataFrame(
        {
            "latent": [3, 3],
            "method": ["paired", "unpaired"],
            "label": ['cat, "dog"', "⏎"],
            "terms": [[["cat", 0.7]], []],
            "kind": ["token", "token"],
            "predicate": [{"kind": "token", "any": [[5]], "vocabulary": 9}, {}],
            "f1": [0.5, float("nan")],
            "abstained": [False, True],
            "chosen": [True, False],
        }
    )
    edges = [[0.0, 1.0, 2.0]]
    latents = pd.DataFrame({"latent": [3], "histogram": [[1, 2]], "histogram_edges": edges, "contexts": [[]]})
    return Labels(table, latents, {"methods": [{"method": "paired", "f1": np.float32(0.5)}], "n_live": np.int64(1)})


def test_labels_come_back_as_they_were_saved(labels, tmp_path):
    labels.save(tmp_path / "labels")
    again = load_labels(tmp_path / "labels")
    pd.testing.assert_frame_equal(again.table, labels.table)
    pd.testing.assert_frame_equal(again.latents, labels.latents)
    assert again.summary == {"methods": [{"method": "paired", "f1": 0.5}], "n_live": 1}
    assert again.chosen()["label"].tolist() == ['cat, "dog"']


def test_the_csv_opens_as_a_table_with_the_same_rows(labels, tmp_path):
    labels.save(tmp_path / "labels")
    rows = pd.read_csv(tmp_path / "labels" / "labels.csv")
    assert rows["label"].tolist() == labels.table["label"].tolist()
    assert json.loads(rows["predicate"][0]) == labels.table["predicate"][0]


def test_existing_labels_are_kept_unless_overwriting(labels, tmp_path):
    labels.save(tmp_path / "labels")
    with pytest.raises(UserError, match="--overwrite"):
        labels.save(tmp_path / "labels")
    labels.save(tmp_path / "labels", overwrite=True)


def test_a_folder_that_is_not_ours_is_never_overwritten(labels, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(UserError, match="not overwritten"):
        labels.save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_failure_while_writing_leaves_the_old_folder_and_no_rubbish(labels, tmp_path):
    labels.save(tmp_path / "labels")

    def fails(folder):
        (folder / "half").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        artifacts.write_folder(tmp_path / "labels", fails)
    assert [p.name for p in tmp_path.iterdir()] == ["labels"]
    assert len(load_labels(tmp_path / "labels").table) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "labels.parquet").write_bytes(b"PAR1"), "damaged"),
        (lambda folder: (folder / "summary.json").unlink(), "not a labels folder"),
        (lambda folder: (folder / "latents.parquet").unlink(), "damaged"),
    ],
)
def test_damaged_labels_are_refused_in_one_line(labels, tmp_path, damage, message):
    labels.save(tmp_path / "labels")
    damage(tmp_path / "labels")
    with pytest.raises(UserError, match=message):
        load_labels(tmp_path / "labels")


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(UserError, match="no labels folder"):
        load_labels(tmp_path / "nowhere")
