"""Training an SAE through SAELens' own trainer, on a recording plan or on a recorded cache."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from activation_cache.errors import UserError, choose
from activation_cache.plan import RecordingPlan
from activation_cache.record import compute_shard
from activation_cache.shards import ActivationCache
from sae_translate.sae.start import STARTS, restart_dead
from sae_translate.sae.topk import ActiveTopKSAE

NORM_BATCHES = 16
"Batches from which the mean and the scale of the activations are estimated before training."
LEAST_STEPS = 1000
WIDE = 16
"Latents a dimension from which an SAE starts at the data."
RESTARTS = 2 / 3
"Share of the training in which dead latents begin again: until the learning rate falls."


@dataclass(frozen=True)
class SaeTrainingConfig:
    """How to train an SAE."""

    d_sae: int
    "Latents."
    k: int = 32
    "Active latents a position, where the architecture fixes their number."
    architecture: str = "topk"
    "topk, batchtopk, jumprelu or standard."
    epochs: int | None = None
    "Passes over the tokens; by default enough for 1,000 steps."
    batch_size: int = 1024
    "Positions in one step."
    lr: float | None = None
    """Highest learning rate; it warms up over the first twentieth and decays over the last third. By default 0.005 at
    512 latents, falling as their square root (the law is Gao et al.'s, arXiv 2406.04093, appendix A; the constant is
    measured on stories260K)."""
    sparsity: float = 1.0
    "Weight of the sparsity loss, for jumprelu (l0) and standard (l1)."
    dead_window: float = 0.1
    """Share of the training after which a latent that has not fired is dead. TopK's auxiliary loss then teaches it what
    the others leave, or it begins again (`start`); the shorter, the fewer latents end up firing hardly ever."""
    start: str | None = None
    """Where the latents of a topk SAE begin. `random`: at random directions; the auxiliary loss teaches the dead.
    `data`: at activations drawn at random, their mean taken off, to which the dead return; there is no auxiliary loss.
    By default `data` from 16 latents a dimension on, where it leaves fewer dead, and `random` below."""
    buffer: int = 131_072
    "Positions that are mixed before they are cut into batches."
    seed: int = 0


@dataclass(frozen=True)
class Activations:
    """Activations of one hook, in blocks that can be read again and again, and where they come from."""

    blocks: Callable[[], Iterator[Float[Tensor, "block d_in"]]]
    "A fresh pass over them."
    n_tokens: int
    d_in: int
    metadata: dict[str, Any]
    "What SAELens' metadata says of them: model_name, model_class_name, hook_name, context_size, prepend_bos, ..."

    def first(self, n_tokens: int) -> "Activations":
        """The first of them, whole blocks, until there are at least so many tokens."""

        def blocks() -> Iterator[Float[Tensor, "block d_in"]]:
            seen = 0
            for block in self.blocks():
                yield block
                seen += len(block)
                if seen >= n_tokens:
                    return

        return replace(self, blocks=blocks, n_tokens=min(n_tokens, self.n_tokens))


@dataclass(frozen=True)
class SaeStep:
    """How training goes, at one step."""

    n_tokens: int
    "Positions seen so far, over all epochs."
    total: int
    loss: float
    explained_variance: float
    "Of this batch."
    dead: int
    "Latents that have not fired for `dead_window` of the training."


def _topk(config: SaeTrainingConfig, **common: Any) -> TopKTrainingSAEConfig:
    return TopKTrainingSAEConfig(k=config.k, aux_loss_coefficient=float(config.start != "data"), **common)


def _batchtopk(config: SaeTrainingConfig, **common: Any) -> BatchTopKTrainingSAEConfig:
    return BatchTopKTrainingSAEConfig(k=config.k, **common)


def _jumprelu(config: SaeTrainingConfig, **common: Any) -> JumpReLUTrainingSAEConfig:
    return JumpReLUTrainingSAEConfig(l0_coefficient=config.sparsity, **common)


def _standard(config: SaeTrainingConfig, **common: Any) -> StandardTrainingSAEConfig:
    return StandardTrainingSAEConfig(l1_coefficient=config.sparsity, **common)


ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "topk": _topk,
    "batchtopk": _batchtopk,
    "jumprelu": _jumprelu,
    "standard": _standard,
}


def plan_activations(plan: RecordingPlan) -> Activations:
    """The activations that a plan with one hook would record, computed as they are needed."""
    manifest = plan.manifest
    tap = plan.model.tap_of(manifest.hook_names[0])
    modules = plan.model.network.named_modules()
    path = next((name for name, module in modules if tap is not None and module is tap.module), None)

    def blocks() -> Iterator[Float[Tensor, "block d_in"]]:
        for index in range(manifest.n_shards):
            yield torch.from_numpy(compute_shard(plan, index)[0]["activations.0"]).float()

    metadata = _metadata(manifest, manifest.hooks[0].name) | {"model_name": plan.model.name, "hf_hook_name": path}
    return Activations(blocks, manifest.n_tokens, manifest.hooks[0].d, metadata)


def cached_activations(cache: ActivationCache, hook_name: str | None = None) -> Activations:
    """The dense activations of a cache at this hook, by default its only one.

    Raises UserError where the cache holds none, or none at this hook.
    """
    manifest = cache.manifest
    recorded = {name: manifest.hook_names.index(name) for name in cache.recorded_hooks()}
    if hook_name is None and len(recorded) > 1:
        raise UserError(f"{cache.path} holds several hooks: choose one with --hook-name: {', '.join(recorded)}")
    hook_name = hook_name or next(iter(recorded))
    index = choose(recorded, hook_name, f"hook of {cache.path}")

    def blocks() -> Iterator[Float[Tensor, "block d_in"]]:
        for shard in cache.shards():
            yield torch.from_numpy(shard[f"activations.{index}"]).float()

    return Activations(blocks, cache.n_tokens, manifest.hooks[index].d, _metadata(manifest, hook_name))


def _metadata(manifest: Any, hook_name: str) -> dict[str, Any]:
    """What is true of every SAE trained here: its activations are read from the Hugging Face model."""
    return {
        "model_name": manifest.model,
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": hook_name,
        "context_size": manifest.context_size,
        "prepend_bos": manifest.prepend_bos,
        "dataset_path": manifest.dataset,
    }


def shuffled_batches(
    activations: Activations, batch_size: int, buffer: int, epochs: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """Batches of mixed positions: half of the buffer is drawn each time it is full; all of it at an epoch's end.

    What does not fill a last batch of an epoch is left out.
    """
    buffer = max(buffer, 2 * batch_size)
    for _ in range(epochs):
        held: list[Tensor] = []
        n_held = 0
        for block in activations.blocks():
            held.append(block)
            n_held += len(block)
            if n_held >= buffer:
                mixed = _mixed(held, generator)
                n_drawn = n_held // 2 // batch_size * batch_size
                yield from mixed[:n_drawn].split(batch_size)
                held, n_held = [mixed[n_drawn:]], n_held - n_drawn
        if held:
            mixed = _mixed(held, generator)
            yield from mixed[: n_held // batch_size * batch_size].split(batch_size)


def _mixed(blocks: list[Float[Tensor, "_ d_in"]], generator: torch.Generator) -> Float[Tensor, "n d_in"]:
    joined = torch.cat(blocks)
    return joined[torch.randperm(len(joined), generator=generator)]


def settled(activations: Activations, config: SaeTrainingConfig) -> SaeTrainingConfig:
    """The configuration with every default that depends on the data filled in."""
    steps = max(1, activations.n_tokens // max(1, config.batch_size))
    epochs = -(-LEAST_STEPS // steps) if config.epochs is None else config.epochs
    lr = 0.005 * (512 / max(1, config.d_sae)) ** 0.5 if config.lr is None else config.lr
    wide = config.architecture == "topk" and config.d_sae >= WIDE * activations.d_in
    start = ("data" if wide else "random") if config.start is None else config.start
    return replace(config, epochs=epochs, lr=lr, start=start)


def train_sae(
    activations: Activations, config: SaeTrainingConfig, device: str = "cpu"
) -> Generator[SaeStep, None, TrainingSAE]:
    """Train an SAE, a `SaeStep` after every hundredth; the generator returns the SAE.

    Activations are scaled to a mean norm of sqrt(d_in) for training, which is folded into the weights at the end, and
    the decoder's bias starts at their mean. Raises UserError as `check_training` does.
    """
    check_training(activations, config)
    config = settled(activations, config)
    build = ARCHITECTURES[config.architecture]
    n_steps = (activations.n_tokens // config.batch_size) * config.epochs
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        settings = build(config, d_in=activations.d_in, d_sae=config.d_sae, device=device,
                         normalize_activations="expected_average_only_in")  # fmt: skip
        sae = ActiveTopKSAE(settings) if config.architecture == "topk" else TrainingSAE.from_dict(settings.to_dict())
    sae.cfg.metadata = _with_metadata(sae.cfg.metadata, activations.metadata)
    generator = torch.Generator().manual_seed(config.seed)
    batches = shuffled_batches(activations, config.batch_size, config.buffer, config.epochs, generator)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * config.batch_size, train_batch_size_samples=config.batch_size,
            lr=config.lr, lr_end=config.lr / 10, lr_warm_up_steps=n_steps // 20, lr_decay_steps=n_steps // 3,
            device=device, dead_feature_window=max(10, int(config.dead_window * n_steps)),
            feature_sampling_window=max(10, n_steps // 5),
        ),
        sae, batches,
    )  # fmt: skip
    n_first = max(NORM_BATCHES, -(-config.d_sae // config.batch_size))
    first = [next(batches).to(device) for _ in range(min(n_first, n_steps))]
    joined = torch.cat(first)
    trainer.activation_scaler.scaling_factor = activations.d_in**0.5 / max(joined.norm(dim=1).mean().item(), 1e-9)
    sae.b_dec.data = joined.mean(0) * trainer.activation_scaler.scaling_factor
    STARTS[config.start](sae, joined * trainer.activation_scaler.scaling_factor - sae.b_dec, generator)
    for group in trainer.optimizer.param_groups:
        group["fused"] = True
    for step in range(n_steps):
        trainer.maybe_reset_sparsity()
        output = trainer.step(first[step] if step < len(first) else next(batches))
        trainer.n_training_steps += 1
        if config.start == "data" and step < RESTARTS * n_steps and not (step + 1) % trainer.cfg.dead_feature_window:
            begun = restart_dead(sae, trainer.optimizer, trainer.dead_neurons, output, generator)
            trainer.n_forward_passes_since_fired[begun] = 0
        if (step + 1) % max(1, n_steps // 100) == 0 or step + 1 == n_steps:
            yield SaeStep(
                trainer.n_training_samples, n_steps * config.batch_size, output.loss.item(),
                explained(output.sae_in.detach(), output.sae_out.detach()), int(trainer.dead_neurons.sum()),
            )  # fmt: skip
    sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.set_final_sae_metadata()
    return sae.eval()


def check_training(activations: Activations, config: SaeTrainingConfig) -> None:
    """Raises UserError where this cannot be trained on these activations."""
    choose(ARCHITECTURES, config.architecture, "architecture")
    given = settled(activations, config)
    choose(STARTS, given.start, "start")
    if given.start == "data" and given.architecture != "topk":
        raise UserError(f"only topk starts at the data: leave out --start, or --architecture {given.architecture}")
    if min(given.d_sae, given.k, given.epochs, given.batch_size) < 1 or given.lr <= 0:
        raise UserError("d_sae, k, epochs and batch_size must be at least 1, and lr above 0")
    if config.k > config.d_sae:
        raise UserError(f"k {config.k} is more than the {config.d_sae} latents there are: give a smaller --k")
    if activations.n_tokens < config.batch_size:
        raise UserError(
            f"{activations.n_tokens:,} tokens are fewer than one batch of {config.batch_size:,}: give more --tokens"
        )


def _with_metadata(metadata: Any, more: dict[str, Any]) -> Any:
    for key, value in more.items():
        metadata[key] = value
    return metadata


def explained(x: Float[Tensor, "n d_in"], x_hat: Float[Tensor, "n d_in"]) -> float:
    """Share of the variance of x that x_hat explains: 1 - sum |x - x_hat|^2 / sum |x - mean|^2."""
    return 1 - ((x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item()


@torch.no_grad()
def measure_sae(sae: Any, activations: Activations) -> dict[str, float]:
    """What an SAE reaches on activations: explained variance, mean active latents, latents that never fire."""
    x = torch.cat(list(activations.blocks()))
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    x_hat, active = torch.empty_like(x), 0
    for start in range(0, len(x), 4096):
        latents = sae.encode(x[start : start + 4096])
        x_hat[start : start + 4096] = sae.decode(latents)
        fired |= (latents > 0).any(0)
        active += int((latents > 0).sum())
    return {"explained_variance": explained(x, x_hat), "l0": active / len(x), "dead": int((~fired).sum())}
