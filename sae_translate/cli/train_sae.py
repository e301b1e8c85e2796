"""`sae-translate train-sae`: an SAE for a model that has none, through SAELens' own trainer."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from activation_cache.errors import UserError


def run(
    out: Annotated[Path, typer.Option(help="Folder of the SAE; SAELens and every command here read it.")],
    model: Annotated[str | None, typer.Option(help="Hub name (short names such as pythia-70m resolve) or local "
                                              "folder.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Hub name, a file, a folder of them, or stories:en, stories:de. "
                                                "Default: NeelNanda/pile-10k.")] = None,
    cache: Annotated[str | None, typer.Option(help="A cache with dense activations, instead of model and "
                                               "dataset.")] = None,
    hook_name: Annotated[str | None, typer.Option(help="Hook point. Default: the cache's only one, or the residual "
                                                  "stream after the middle layer.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub dataset.")] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the text. Default: found by its name.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Exactly so many tokens of the dataset. "
                                               "Default: all there are, up to 1,000,000.")] = None,
    context_size: Annotated[int | None, typer.Option(help="Most positions fed at once, BOS included. "
                                                     "Default: 128.")] = None,
    bos: Annotated[bool | None, typer.Option(help="Feed a BOS before every context; the SAE is not trained on it. "
                                             "Default: as the model was trained.")] = None,
    d_sae: Annotated[int | None, typer.Option("--d-sae", help="Latents. Default: 8 times the width.")] = None,
    k: Annotated[int, typer.Option(help="Active latents a position, for topk and batchtopk.")] = 32,
    architecture: Annotated[str, typer.Option(help="topk, batchtopk, jumprelu or standard.")] = "topk",
    sparsity: Annotated[float, typer.Option(help="Weight of the sparsity loss, for jumprelu and standard.")] = 1.0,
    start: Annotated[str | None, typer.Option(help="Where latents of topk begin: data or random. Default: data from 16 "
                                              "latents a dimension on.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the tokens. Default: enough for 1,000 steps.")] = None,
    batch_size: Annotated[int, typer.Option(help="Positions in one step.")] = 1024,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate. "
                                             "Default: 0.005 at 512 latents, less for more.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the stories, the weights and the order.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16: what the model runs in.")] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an SAE that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, one object.")] = False,
) -> None:
    """Train an SAE on a model and a dataset, or on a cache that holds dense activations."""
    from sae_translate.artifacts import check_output

    if (model is None) == (cache is None):
        raise UserError("give either --model (with --dataset) or --cache")
    belong_to_model = {"--dataset": dataset, "--config": config, "--split": split, "--column": column,
                       "--tokens": tokens, "--context-size": context_size, "--bos": bos}  # fmt: skip
    foreign = [name for name, value in belong_to_model.items() if value is not None]
    if cache is not None and foreign:
        raise UserError(f"{', '.join(foreign)} cannot be changed for a cache, which is recorded already: leave it out")
    check_output(out, overwrite, is_sae_folder)

    from sae_translate.sae.train import (
        SaeTrainingConfig,
        cached_activations,
        check_training,
        measure_sae,
        plan_activations,
        settled,
        train_sae,
    )

    if cache is not None:
        from activation_cache.shards import ActivationCache

        activations = cached_activations(ActivationCache(cache), hook_name)
    else:
        from activation_cache.plan import RecordingConfig, plan_recording
        from sae_translate.cli.cache import generated_documents

        chosen = RecordingConfig(
            model=model, dataset=dataset, config=config, split=split, column=column, n_tokens=tokens,
            hook_names=(hook_name,) if hook_name else (), context_size=context_size, prepend_bos=bos,
            activations=True, device=device, dtype=dtype, seed=seed,
        )  # fmt: skip
        activations = plan_activations(plan_recording(chosen, generated_documents(dataset, seed)))
    training = SaeTrainingConfig(
        d_sae=d_sae or 8 * activations.d_in, k=k, architecture=architecture, epochs=epochs, batch_size=batch_size,
        lr=lr, sparsity=sparsity, start=start, seed=seed,
    )  # fmt: skip
    check_training(activations, training)
    training = settled(activations, training)
    told = activations.metadata
    if not as_json:
        print(f"SAE:   {architecture}, {training.d_sae:,} latents at {told['hook_name']} ({activations.d_in}) of "
              f"{told['model_name']}\n"
              f"data:  {activations.n_tokens:,} tokens of {told['dataset_path']}, {training.epochs} times\n"
              f"out:   {out}", flush=True)  # fmt: skip
    figures: dict[str, Any] = {}
    if not dry_run:
        from sae_translate.artifacts import write_folder
        from sae_translate.cli.recipe import watched

        sae = watched("SAE", train_sae(activations, training, device), quiet=as_json)
        figures = measure_sae(sae, activations.first(50_000))
        write_folder(out, lambda folder: sae.save_inference_model(folder))
    if as_json:
        print(json.dumps({"out": str(out), "trained": not dry_run, "n_tokens": activations.n_tokens,
                          "d_in": activations.d_in, "d_sae": training.d_sae, **told, **figures}))  # fmt: skip
    elif figures:
        print(f"{out}: explains {figures['explained_variance']:.3f} of the variance with {figures['l0']:.1f} latents a "
              f"position; {figures['dead']:,} of {training.d_sae:,} never fire on the first 50,000 tokens")


def is_sae_folder(path: Path) -> bool:
    """Whether the folder holds an SAE in SAELens' format and nothing else."""
    return {"cfg.json", "sae_weights.safetensors"} <= {file.name for file in path.iterdir()} <= {
        "cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "runner_cfg.json",
    }  # fmt: skip
