"""`sae-translate translate`: text through a translator, a line at a time."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from activation_cache.errors import UserError, choose


def run(
    translator: Annotated[Path, typer.Argument(help="Folder that `sae-translate train` wrote.")],
    text: Annotated[Path | None, typer.Argument(help="File with a text a line. Default: standard input.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="From the target back into the source.")] = False,
    out: Annotated[Path | None, typer.Option(help="File that gets a translation a line. Default: the screen.")] = None,
    method: Annotated[str, typer.Option(help="greedy, beam or sample.")] = "greedy",
    beam: Annotated[int, typer.Option(help="Hypotheses that beam search keeps.")] = 4,
    lm: Annotated[
        str | None,
        typer.Option(help="Text in the language that is written (file, FILE.tsv:COLUMN, folder, hub name, stories:en): "
                     "beam search follows a language model of it."),
    ] = None,
    lm_kind: Annotated[str, typer.Option(help="ngram or neural.")] = "ngram",
    lm_weight: Annotated[float, typer.Option(help="What the language model counts at every word.")] = 0.3,
    rerank: Annotated[
        float, typer.Option(help="What it counts when one of the beam's hypotheses is chosen.")
    ] = 0.0,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling and of a neural language model.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    reference: Annotated[
        Path | None, typer.Option(help="File with the right translation a line: BLEU and chrF are told.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line: source and target.")] = False,
) -> None:
    """Translate lines of text; words that the translator does not know are copied."""
    if out is not None and out.exists() and not overwrite:
        raise UserError(f"{out} exists: give another --out, or --overwrite to replace it")
    if beam < 1 or temperature <= 0:
        raise UserError("--beam must be at least 1, --temperature above 0")
    if lm is not None and method != "beam":
        raise UserError("--lm is for beam search: add --method beam, or leave it out")
    from sae_translate.cli import language_models
    from sae_translate.translate.decoding import METHODS, DecodingConfig
    from sae_translate.translate.translator import load_translator

    choose(METHODS, method, "decoding method")
    loaded = load_translator(translator, device)
    lines = read_lines(text)
    truth = None if reference is None else read_lines(reference)
    if truth is not None and len(truth) != len(lines):
        raise UserError(f"{reference} has {len(truth):,} lines and the text {len(lines):,}: a line each is needed")
    side = int(reverse)
    model = None if lm is None else language_models.learn(lm, lm_kind, loaded, 1 - side, seed, device)
    decoding = DecodingConfig(method, beam=beam, lm_weight=lm_weight, rerank_weight=rerank, temperature=temperature,
                              seed=seed)  # fmt: skip
    told = translate_lines(loaded, lines, side, decoding, model)
    if truth is not None:
        print(json.dumps(score(told, truth, loaded.record.get("lower", True))), file=sys.stderr)
    if as_json:
        told = [json.dumps({"source": a, "target": b}, ensure_ascii=False) for a, b in zip(lines, told, strict=True)]
    if out is None:
        print("\n".join(told))
        return
    from sae_translate.artifacts import write_text

    write_text(out, "".join(line + "\n" for line in told))


def read_lines(path: Path | None) -> list[str]:
    """The lines of a file, or of standard input. Raises UserError where there is none, or no text in it."""
    try:
        content = sys.stdin.read() if path is None else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"no such text: {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path or 'standard input'} is not UTF-8 text: convert it first") from None
    if not content.strip():
        raise UserError(f"{path or 'standard input'} is empty: give a line of text or more")
    return content.splitlines()


def translate_lines(translator, lines: list[str], side: int, decoding, model=None) -> list[str]:
    """Every line translated sentence by sentence, words and marks set apart by spaces."""
    from sae_translate.cli.language_models import sentences_of

    lower = translator.record.get("lower", True)
    sentences = [sentences_of(line, lower) for line in lines]
    flat = [words for line in sentences for words in line]
    told = iter(translator.translate_words(flat, side, decoding, model))
    return [" ".join(word for _ in line for word in next(told)) for line in sentences]


def score(told: list[str], truth: list[str], lower: bool) -> dict[str, float]:
    """BLEU and chrF (sacrebleu) of words and marks set apart by spaces."""
    import sacrebleu

    from sae_translate.languages.tokens import split_words

    references = [[" ".join(split_words(line.lower() if lower else line)) for line in truth]]
    bleu = sacrebleu.corpus_bleu(told, references, tokenize="none", force=True)
    return {"bleu": bleu.score, "chrf": sacrebleu.corpus_chrf(told, references).score, "lines": len(told)}
