"""`sae-translate read`: the text that a cache's latents stand for, context by context."""

import json
from pathlib import Path
from typing import Annotated

import typer

from activation_cache.errors import UserError


def run(
    cache: Annotated[str, typer.Argument(help="Cache with latents, from `sae-translate cache --sae`.")],
    out: Annotated[Path, typer.Option(help="File that gets one JSON object a context.")] = Path("read.jsonl"),
    sae: Annotated[str | None, typer.Option(help="Which SAE of the cache, where it has several.")] = None,
    vocabulary: Annotated[int, typer.Option(help="The most frequent tokens that latents are read as.")] = 2000,
    latents: Annotated[int, typer.Option(help="The latents that fire most, of which so many are read.")] = 4096,
    seed: Annotated[int, typer.Option(help="Seed of splits, decipherment and reader.")] = 0,
    device: Annotated[str, typer.Option(help="Where decipherment is done: cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, one object.")] = False,
) -> None:
    """Read documents from their latents alone: learnt from the latents of others and the text of others still."""
    import sys

    if vocabulary < 2 or latents < 2 or seed < 0:
        raise UserError("--vocabulary and --latents must be at least 2, --seed at least 0")
    if out.exists() and (out.is_dir() or not overwrite):
        raise UserError(f"{out} exists: give another --out, or --overwrite to replace a file")
    from sae_translate.align.decipher import DecipherConfig
    from sae_translate.artifacts import compact_json, write_text
    from sae_translate.label.sentences import SentencesConfig, read_sentences

    config = SentencesConfig(vocabulary, latents, decipherment=DecipherConfig(device=device), seed=seed)
    say = None if as_json else lambda stage: print(f"{stage} ...", file=sys.stderr, flush=True)
    found = read_sentences(cache, sae, config, say)
    write_text(out, "".join(compact_json(row) + "\n" for row in found.table.to_dict("records")))
    if as_json:
        print(json.dumps({"out": str(out), **found.summary}))
        return
    told = found.summary
    print(f"{out}: {len(found.table):,} contexts of {told['n_tokens']:,} tokens, {told['reader']:.1%} of them right "
          f"(dictionary with a language model {told['dictionary']:.1%}, always the most frequent token "
          f"{told['most_frequent']:.1%})")  # fmt: skip
    for row in found.table.head(2).itertuples():
        print(f"  read: {row.read[:150]}\n  true: {row.true[:150]}")
    if "believed" in told:
        print(f"{'believed' if told['believed'] else 'NOT believed'}: {told['reason']}")
