"""The figures of a training as lines of JSON and on TensorBoard are those of its steps."""

import json
import sys

import pytest
from test_cli_translate import SMALL, sae_translate

from activation_cache.errors import UserError
from sae_translate.cli.training_log import tensorboard
from sae_translate.demo.stories import generate_documents


def test_tensorboard_and_lines_of_json_hold_the_same_figures(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for name, seed in (("en", 1), ("de", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(list(generate_documents(name, 30, seed))))
    (tmp_path / "small.json").write_text(json.dumps(SMALL | {"start": "random"}))
    sae_translate("train", tmp_path / "de.json", tmp_path / "en.json", "--config", tmp_path / "small.json",
                  "--vocabulary", 60, "--out", tmp_path / "made", "--log", tmp_path / "log.jsonl",
                  "--tensorboard", tmp_path / "board", "--json")  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    board = events.EventAccumulator(str(tmp_path / "board"))
    board.Reload()

    def curve(name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in board.Scalars(name)]

    for name, told in {
        "criterion": lambda line: line["criterion"],
        "round_trip/source": lambda line: line["round_trip"][0],
        "fluency/target": lambda line: line["fluency"][1],
        "loss/denoise": lambda line: line["losses"]["denoise"],
    }.items():
        assert curve(name) == [(line["step"], pytest.approx(told(line))) for line in lines], name
    assert {name for name in board.Tags()["scalars"] if name.startswith("loss/")} == {
        f"loss/{name}" for name in lines[0]["losses"]
    }


def test_without_tensorboard_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"--tensorboard needs TensorBoard: pip install 'sae-translate\[tensorboard\]'"):
        tensorboard(tmp_path)
