"""Measure what each part of decipherment is good for, by leaving it out.

    OMP_NUM_THREADS=1 python benchmarks/decipherment/necessity.py --seeds 3

The 512 latents of stories260K after layer 3, named by its tokens: latent statistics come from one half of the
documents, token statistics from the other. Gold is the token that holds most of a latent's activation over all
documents; P@1 over latents of which that is more than half, and over all. No verdict is asked for.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from material import Model, documents_of, encode, sae_of, token_language
from run import Gold, halves

from sae_translate.align.alignment import Alignment
from sae_translate.align.core import Core, DecipherConfig, core_of, smooth, start_emission
from sae_translate.align.emission import Fit, maximise
from sae_translate.languages.language import Corpus, Language
from sae_translate.translate.dictionary import in_context

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
WHOLE = DecipherConfig()
LEFT_OUT = {
    "whole, not read in context": {},
    "one lag for six": {"config": replace(WHOLE, lags=(1,), far_lag=0)},
    "two lags for six": {"config": replace(WHOLE, lags=(1, 2))},
    "all lags weigh alike": {"config": replace(WHOLE, far_lag=0)},
    "target not smoothed": {"smoothed": False},
    "plain EM, no over-relaxation": {"acceleration": 1.0},
    "start blind to frequency": {"config": replace(WHOLE, frequency_weight=0.0)},
    "best of three starts": {"config": replace(WHOLE, restarts=3)},
}
"What is left out or changed, one at a time."


def best_fit(cipher: Core, plain: Core, config: DecipherConfig, smoothed: bool, acceleration: float) -> Fit:
    """As `decipher` does it, with what that has no knob for."""
    likely = (smooth(plain) if smoothed else plain).joint
    fits = []
    for restart in range(config.restarts):
        draw = torch.Generator().manual_seed(config.seed + 1000 * restart)
        start = start_emission(cipher, plain, config, draw)
        fits.append(maximise(cipher.joint, likely, start, config.iterations, config.tolerance, acceleration,
                             cipher.local))  # fmt: skip
    return max(fits, key=lambda fit: fit.trace[-1])


def deciphered(
    source: Language, target: Language, config: DecipherConfig, smoothed: bool = True, acceleration: float = 1.1
) -> tuple[Alignment, Fit]:
    cipher, plain = core_of(source, len(source.items), config), core_of(target, len(target.items), config)
    fit = best_fit(cipher, plain, config, smoothed, acceleration)
    joint = (plain.frequency[:, None] * fit.emission).T.numpy()[: len(cipher.items), : len(plain.items)]
    coupling = np.zeros((len(source.items), len(target.items)), np.float32)
    coupling[np.ix_(cipher.items, plain.items)] = joint
    sure = coupling.max(1) / np.maximum(coupling.sum(1), 1e-30)
    made = Alignment(source.items, target.items, coupling / coupling.sum(), fit.trace[-1], sure, None, {})
    return made, fit


def measured(seed: int, source: Language, target: Language, gold: Gold) -> Iterator[dict]:
    for name, change in LEFT_OUT.items():
        began = time.process_time()
        config = replace(change.get("config", WHOLE), seed=seed)
        found, fit = deciphered(source, target, **(change | {"config": config}))
        yield row_of(name, seed, found, gold, fit.steps, time.process_time() - began)
        if not change:
            read = in_context(found, source, target, config).alignment
            yield row_of("whole, read in context", seed, read, gold, fit.steps, time.process_time() - began)


def row_of(name: str, seed: int, found: Alignment, gold: Gold, steps: int, seconds: float) -> dict:
    score = gold.score(found)
    return {"part": name, "seed": seed, "explained_information": found.objective, "steps": steps,
            "p_at_1_clear": score["precision>0.5"]["p_at_1"], "n_clear": score["precision>0.5"]["n"],
            "p_at_1": score["precision>0"]["p_at_1"], "n": score["precision>0"]["n"],
            "share_of_paired_mass": score["share_of_paired_mass"], "cpu_seconds": seconds}  # fmt: skip


def page(result: dict) -> str:
    rows = result["rows"]
    lines = ["# Parts of decipherment left out", "", __doc__.split("\n\n")[-1].strip(), "",
             f"n = {rows[0]['n_clear']} and {rows[0]['n']}. Means over seeds (range).", "",
             "| left out or changed | seeds | P@1, clear latents | P@1, all | share of paired mass | explained "
             "information | evaluations | CPU s |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]

        def told(key: str, digits: int = 3, own: list[dict] = own) -> str:
            values = [row[key] for row in own]
            return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

        lines.append(f"| {part} | {len(own)} | {told('p_at_1_clear')} | {told('p_at_1')} | "
                     f"{told('share_of_paired_mass')} | {told('explained_information')} | {told('steps', 0)} | "
                     f"{told('cpu_seconds', 1)} |")  # fmt: skip
    return "\n".join([*lines, "", *(f"`{command}`  " for command in result["commands"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="where some seeds have been run before")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "decipherment_necessity")
    given = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit("the model and the stories are not at ../shared/data beside the checkout: nothing was measured")
    torch.set_num_threads(1)
    model = Model(SHARED / "models" / "stories260K", "blocks.2.hook_resid_post")
    tokens, offsets, owners = model.tokens(documents_of(SHARED / "text" / "tinystories" / "tinystories_1000.json"))
    x = model.activations(tokens, offsets)
    matrix = encode(sae_of(model, x, 512, 8, 1500, seed=0), x)
    names = tuple(model.tokenizer.convert_ids_to_tokens(range(model.model.config.vocab_size)))
    latents = Language("latents", tuple(map(str, range(matrix.shape[1]))), Corpus(matrix, offsets, owners))
    text = token_language("tokens", tokens, offsets, owners, names)
    gold = Gold(latents, text, np.arange(len(names)))
    path = given.out.with_suffix(".json")
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"commands": [], "rows": []}
    command = " ".join(["OMP_NUM_THREADS=1 python benchmarks/decipherment/necessity.py", *sys.argv[1:]])
    result |= {"commands": [*result["commands"], command], "torch": torch.__version__}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        result["rows"] = [row for row in result["rows"] if row["seed"] != seed]
        for row in measured(seed, halves(latents, seed)[0], halves(text, seed)[1], gold):
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        given.out.with_suffix(".md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
