r"""A small model of real English and its SAE, for measuring: trained here, kept under `.bench/`, never committed.

Text: 1,000 TinyStories, the English sentences of Tatoeba (eight to a document), the chapters of the Berean Bible;
about 2.2M tokens. The model reads from all of it but one document in 32, on which its loss is told. What it may have
read is written beside it, whole (read.json) and in two halves that share no document, a.json and b.json: latent
statistics from one, text statistics from the other.

    python benchmarks/english/train.py                       # a quarter of an hour on 2 cores
    python benchmarks/english/train.py --sae-only --overwrite
    python benchmarks/decipherment/run.py --model .bench/english/model --dataset .bench/english/read.json \
        --hook-name blocks.1.hook_resid_post --d-sae 1024 --out .bench/english/decipherment.json
"""

import csv
import dataclasses
import gzip
import json
import random
import re
from pathlib import Path
from typing import Annotated

import torch
import typer

from activation_cache.errors import UserError
from activation_cache.plan import RecordingConfig, plan_recording
from sae_translate.artifacts import check_output, write_folder, write_text
from sae_translate.cli.recipe import save_language_model, watched
from sae_translate.cli.train_sae import is_sae_folder
from sae_translate.config import read_config
from sae_translate.demo.recipe import LanguageModelConfig, evaluate_language_model, train_language_model
from sae_translate.sae.train import SaeTrainingConfig, measure_sae, plan_activations, train_sae

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT.parent / "shared" / "data" / "text"
RECIPE, OUT = Path(__file__).with_name("english.json"), ROOT / ".bench" / "english"
SENTENCES = 8
HELD_OUT = 32


@dataclasses.dataclass(frozen=True)
class EnglishRecipe:
    """The model, the SAE, and what they read."""

    model: LanguageModelConfig
    hook_name: str
    sae_tokens: int
    "Tokens of the half a.json that the SAE is trained on."
    sae: SaeTrainingConfig
    seed: int = 0
    "Of the order of the documents."


def english_documents(folder: Path = TEXT) -> list[str]:
    """Stories, groups of sentences, chapters. Raises UserError where the text is not there."""
    if not folder.is_dir():
        raise UserError(f"the text is not at {folder.parent.parent.name}/data/text beside the checkout")
    stories = json.loads((folder / "tinystories" / "tinystories_1000.json").read_text(encoding="utf-8"))
    with gzip.open(folder / "tatoeba" / "deu-eng.tsv.gz", "rt", encoding="utf-8") as file:
        rows = list(dict.fromkeys(row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)))
    random.Random(0).shuffle(rows)
    sentences = [" ".join(rows[start : start + SENTENCES]) for start in range(0, len(rows), SENTENCES)]
    return stories + sentences + chapters(folder / "bible" / "eng-BSB.txt.gz")


def chapters(path: Path) -> list[str]:
    """The chapters of a bible of lines `[chapter:verse] text` under `### Book`."""
    found: dict[tuple[str, str], list[str]] = {}
    book = ""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.startswith("###"):
                book = line.strip("# \n")
            elif verse := re.match(r"\[(\d+):\d+\]\s*(.*)", line):
                found.setdefault((book, verse[1]), []).append(verse[2].strip())
    return [" ".join(verses) for verses in found.values()]


def run(
    recipe: Annotated[Path, typer.Option(help="Configuration.")] = RECIPE,
    out: Annotated[Path, typer.Option(help="Folder that gets model/, sae/, texts and recipe.json.")] = OUT,
    sae_only: Annotated[bool, typer.Option("--sae-only", help="Keep the model that is there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Train the English model and its SAE."""
    torch.set_num_threads(threads)
    chosen = read_config(EnglishRecipe, recipe)
    check_output(out / "sae", overwrite, is_sae_folder)
    documents = english_documents()
    random.Random(chosen.seed).shuffle(documents)
    held_out, read = documents[::HELD_OUT], [text for i, text in enumerate(documents) if i % HELD_OUT]
    write_text(out / "read.json", json.dumps(read, ensure_ascii=False))
    write_text(out / "a.json", json.dumps(read[::2], ensure_ascii=False))
    write_text(out / "b.json", json.dumps(read[1::2], ensure_ascii=False))
    figures: dict[str, float] = {}
    if not sae_only:
        check_output(out / "model", overwrite, lambda folder: (folder / "config.json").is_file())
        trained = watched("language model", train_language_model(read, chosen.model, device))
        figures["held-out loss"] = evaluate_language_model(trained, held_out, chosen.model.context_size)
        figures["parameters"] = sum(parameter.numel() for parameter in trained.network.parameters())
        write_folder(out / "model", lambda folder: save_language_model(trained, folder, "float32"))
    settings = RecordingConfig(
        model=str(out / "model"), dataset=str(out / "a.json"), hook_names=(chosen.hook_name,),
        n_tokens=chosen.sae_tokens, prepend_bos=True, context_size=chosen.model.context_size, device=device,
    )  # fmt: skip
    activations = plan_activations(plan_recording(settings))
    activations = dataclasses.replace(activations, metadata=activations.metadata | {"model_name": "english/model"})
    sae = watched("SAE", train_sae(activations, chosen.sae, device))
    other = plan_recording(dataclasses.replace(settings, dataset=str(out / "b.json"), n_tokens=100_000))
    figures |= measure_sae(sae, plan_activations(other))
    write_folder(out / "sae", lambda folder: sae.save_inference_model(folder))
    record = {"recipe": dataclasses.asdict(chosen), "figures": figures}
    write_text(out / "recipe.json", json.dumps(record, indent=1) + "\n")
    print(f"{out}: {json.dumps(figures)}")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(run)
    try:
        app()
    except UserError as error:
        raise SystemExit(f"{error}") from None
