"""The tables of an ablation from rows whose effects are known."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from sae_translate.translate.ablation import (
    AblationConfig,
    agreement,
    cells_of,
    effects,
    needed,
    switched_on,
    translator_config,
)

CONFIG = AblationConfig(pairs=("markov:4", "markov:8"), sizes=(10, 20), seeds=4, base=("denoise",),
                        losses=("pseudo_parallel", "denoise", "moments"), without_noise=False)  # fmt: skip


def rows() -> list[dict]:
    """Pseudo-parallel text brings 0.5, moments bring nothing but noise, a random start costs 0.3."""
    rng = np.random.default_rng(0)
    found = []
    for cell in cells_of(CONFIG):
        on = switched_on(cell.design, CONFIG)
        score = 0.2 + 0.5 * ("pseudo_parallel" in on) - 0.3 * (cell.start == "random") + 0.02 * rng.standard_normal()
        found.append({"cell": asdict(cell), "key": cell.key, "score": score, "criterion": score**2 + 1})
    return found


def test_every_cell_is_there_once_and_cells_of_one_alignment_stand_together():
    cells = list(cells_of(CONFIG))
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 * 4 * (4 + 3 + 1)
    groups = [(cell.pair, cell.size, cell.seed) for cell in cells]
    assert sum(a != b for a, b in pairwise(groups)) == len(set(groups)) - 1


def test_leaving_out_and_adding_find_the_effects_that_are_there_and_no_other():
    found = effects(rows(), CONFIG)
    for effect in found:
        truth = {"pseudo_parallel": 0.5, "start alignment": 0.3}.get(effect.name, 0.0)
        assert effect.low - 0.01 <= truth <= effect.high + 0.01
        assert effect.n == 8
    assert {effect.kind for effect in found} == {"left out", "added", "instead of random"}
    assert needed(found) == ["pseudo_parallel", "start alignment"]
    assert needed(found, least=3) == []


def test_one_difference_has_no_interval_and_makes_nothing_needed():
    once = [row for row in rows() if (row["cell"]["seed"], row["cell"]["size"]) == (0, 10)]
    found = effects(once, CONFIG)
    assert {effect.n for effect in found} == {1} and all(np.isnan([one.low, one.high]).all() for one in found)
    assert needed(found, least=1) == []


def test_a_row_whose_counterpart_is_missing_is_not_compared():
    some = [row for row in rows() if not (row["cell"]["design"] == "-moments" and row["cell"]["seed"] == 0)]
    counts = {effect.n for effect in effects(some, CONFIG) if effect.name == "moments" and effect.kind == "left out"}
    assert counts == {6}


def test_the_criterion_agrees_with_a_score_that_it_rises_with():
    follows = agreement(rows())
    assert all(value == pytest.approx(1.0) for value in follows.by_pair.values())
    assert all(value == pytest.approx(1.0) for value in follows.picked.values())
    against = [{**row, "criterion": -row["score"]} for row in rows()]
    assert all(value == pytest.approx(-1.0) for value in agreement(against).by_pair.values())


def test_a_design_switches_on_what_it_says():
    config = AblationConfig(pairs=("markov:4",), sizes=(10,), losses=("denoise", "moments"))
    cell = next(iter(cells_of(config)))
    whole, without = (translator_config(cell.__class__(**{**asdict(cell), "design": design}), config)
                      for design in ("all", "-noise"))  # fmt: skip
    assert whole.losses.moments.is_used and not whole.losses.back_translation.is_used
    assert whole.noise.drop > 0 and without.noise.drop == 0 and without.losses == whole.losses
    assert switched_on("base", config) == {"denoise"} and switched_on("+noise", config) == {"denoise", "noise"}
