"""`python -m sae_translate.cli.recipe configs/demo.json`: the embedded model and its SAE, made anew."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activation_cache.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Generator

DATA = Path(__file__).resolve().parents[1] / "demo" / "data"


def run(
    recipe: Annotated[Path, typer.Argument(help="Configuration, such as configs/demo.json.")],
    out: Annotated[Path, typer.Option(help="Folder that gets model/, sae/ and recipe.json.")] = DATA,
    sae_only: Annotated[bool, typer.Option("--sae-only", help="Keep the model that is there; train its SAE.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Train the embedded language model on generated stories, and an SAE on it."""
    from sae_translate.artifacts import check_output, write_folder, write_text
    from sae_translate.cli.train_sae import is_sae_folder
    from sae_translate.config import read_config
    from sae_translate.demo.recipe import DemoRecipe
    from sae_translate.demo.stories import generate_documents

    chosen = read_config(DemoRecipe, recipe)
    model_folder, sae_folder = out / "model", out / "sae"
    check_output(sae_folder, overwrite, is_sae_folder)
    if sae_only and not (model_folder / "config.json").is_file():
        raise UserError(f"--sae-only needs the model at {model_folder}, and there is none: leave it out")
    documents = list(generate_documents(chosen.language, chosen.stories, chosen.seed))
    if not sae_only:
        from sae_translate.demo.recipe import train_language_model

        check_output(model_folder, overwrite, lambda folder: (folder / "config.json").is_file())
        trained = watched("language model", train_language_model(documents, chosen.model, device))
        write_folder(model_folder, lambda folder: save_language_model(trained, folder))

    from activation_cache.models import load_model
    from activation_cache.plan import RecordingConfig, plan_recording
    from sae_translate.demo.recipe import evaluate_language_model
    from sae_translate.sae.train import measure_sae, plan_activations, train_sae

    def activations(seed: int, n_tokens: int) -> Any:
        settings = RecordingConfig(
            model=str(model_folder), dataset=f"stories:{chosen.language}", hook_names=(chosen.hook_name,),
            n_tokens=n_tokens, prepend_bos=True, context_size=chosen.model.context_size, device=device,
        )  # fmt: skip
        return plan_activations(plan_recording(settings, generate_documents(chosen.language, None, seed)))

    source = activations(chosen.seed, chosen.sae_tokens)
    portable = source.metadata | {"model_name": portable_name(model_folder)}
    sae = watched("SAE", train_sae(dataclasses.replace(source, metadata=portable), chosen.sae, device))
    others = list(generate_documents(chosen.language, min(500, chosen.stories), chosen.seed + 1))
    loss = evaluate_language_model(load_model(model_folder), others, chosen.model.context_size)
    figures = {"loss": loss, **measure_sae(sae, activations(chosen.seed + 1, min(50_000, chosen.sae_tokens)))}
    write_folder(sae_folder, lambda folder: sae.save_inference_model(folder))
    record = {"recipe": dataclasses.asdict(chosen), "measured on stories of other plots": figures}
    write_text(out / "recipe.json", json.dumps(record, indent=1) + "\n")
    print(f"{out}: {json.dumps(figures)}")


def watched(what: str, steps: "Generator[Any, None, Any]", quiet: bool = False) -> Any:
    """Run training to its end with a bar; its result."""
    from sae_translate.cli import progress

    first = next(steps)
    with progress.bar(f"training the {what}", first.total, "tokens", quiet) as advance:
        advance(first.n_tokens, f"loss {first.loss:.3f}")
        return progress.returned(steps, lambda step: advance(step.n_tokens, f"loss {step.loss:.3f}"))


def save_language_model(trained: Any, folder: Path, dtype: str = "float16") -> None:
    """Weights, by default in half precision, and the tokenizer; transformers loads both."""
    import torch

    trained.network.to("cpu", getattr(torch, dtype)).save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)


def portable_name(folder: Path) -> str:
    """The folder by its path from the package on, the same on every machine; else by its last part."""
    root = DATA.parents[2]
    return folder.resolve().relative_to(root).as_posix() if folder.resolve().is_relative_to(root) else folder.name


app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
app.command()(run)


def main() -> None:
    """Run it; a `UserError` is one line and exit code 2."""
    import sys

    try:
        app()
    except UserError as error:
        print(f"sae-translate: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
