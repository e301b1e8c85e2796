"""`sae-translate verify`: check every byte of a cache against its hashes, and mend what is damaged."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from activation_cache.errors import UserError

if TYPE_CHECKING:
    from activation_cache.plan import RecordingPlan


def run(
    cache: Annotated[str, typer.Argument(help="Folder or URL of an activation cache.")],
    repair: Annotated[bool, typer.Option("--repair", help="Compute again what is damaged, to the recorded bytes, and "
                                         "touch nothing else.")] = False,
    model: Annotated[str | None, typer.Option(help="With --repair: where the model is. Default: as recorded.")] = None,
    sae: Annotated[list[str] | None, typer.Option(help="With --repair: where each SAE is, in the cache's order. "
                                                  "Default: as recorded.")] = None,
    dataset: Annotated[str | None, typer.Option(help="With --repair: where the text is. Default: as recorded.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub dataset, if one was given.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub dataset, if one was given.")] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the text, if one was given.")] = None,
    device: Annotated[str, typer.Option(help="With --repair: the device it was recorded on.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:
    """Read a cache whole; exit 2 and name what is truncated, altered or missing, or mend it with --repair."""
    from activation_cache.places import place
    from activation_cache.shards import ActivationCache, check, read_manifest

    given = {"--model": model, "--sae": sae, "--dataset": dataset, "--config": config, "--split": split,
             "--column": column}
    if not repair and (idle := [option for option, value in given.items() if value]):
        raise UserError(f"{idle[0]} is only of use with --repair: add --repair, or leave it out")
    folder = place(cache)
    results = dict(check(folder))
    bad = {file: reason for file, reason in results.items() if reason}
    repaired = []
    if bad and repair:
        from activation_cache.repair import recording_config
        from activation_cache.repair import repair as mend

        def plan() -> "RecordingPlan":
            from activation_cache.plan import plan_recording
            from sae_translate.cli.cache import generated_documents

            chosen = recording_config(read_manifest(folder), model, tuple(sae or ()), dataset, config, split, column,
                                      device)
            return plan_recording(chosen, generated_documents(chosen.dataset, chosen.seed))

        for file in mend(folder, plan):
            repaired.append(file)
            if not as_json:
                print(f"repaired {file}", flush=True)
        bad = {file: reason for file, reason in check(folder) if reason}
    if as_json:
        print(json.dumps({"cache": cache, "files": len(results), "bad": bad, "repaired": repaired}))
    if bad:
        more = f" ({len(bad)} files are bad: {', '.join(bad)})" if len(bad) > 1 else ""
        raise UserError(next(iter(bad.values())) + more)
    opened = ActivationCache(folder)
    if not as_json:
        print(f"{cache}: {len(results)} files, {opened.n_tokens:,} tokens, {opened.n_bytes:,} bytes, all as recorded")
