"""Training a translator without pairs: a generator of steps, each of which can be resumed from exactly.

The order of things follows Lample et al. 2018 (arXiv 1804.07755): start from a dictionary, denoise, translate back and
learn from that. Every random draw is seeded by the step, so a step does the same whatever came before it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from activation_cache.errors import UserError, choose
from sae_translate.align.alignment import Alignment
from sae_translate.languages.language import Corpus, Language
from sae_translate.translate.adapters import AdapterSpec, Symbols, spec_of
from sae_translate.translate.batches import Batch, batch_of, corrupt, short_segments
from sae_translate.translate.config import TrainingConfig, TranslatorConfig
from sae_translate.translate.criterion import Criterion, judge_network
from sae_translate.translate.decoding import DecodingConfig, translate_batch
from sae_translate.translate.lm import NgramModel, fit_ngrams
from sae_translate.translate.losses import critic_loss, fooling_loss, moment_distance, prior_cost
from sae_translate.translate.network import Latent, Network, closed, opened, seeded_network
from sae_translate.translate.pseudo import pseudo_parallel, refine, texts_of
from sae_translate.translate.team import Team
from sae_translate.translate.translator import Translator

STARTS = {"alignment": True, "random": False}
"Starts, and whether each needs an alignment."
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SEEDS_A_STEP = 64


@dataclass(frozen=True)
class State:
    """All that a later step depends on, as arrays and JSON."""

    tensors: dict[str, Tensor]
    record: dict
    "step, best (criterion), best_step, looks (without a better one), history."


@dataclass(frozen=True)
class Step:
    """How training goes, at one step."""

    number: int
    "Steps done."
    total: int
    losses: dict[str, float]
    "Unweighted, both sides together."
    criterion: Criterion | None
    "At the steps where it is looked at."
    is_best: bool
    state: Callable[[], State] = field(repr=False)
    "What to save in order to go on from here. It must be called before the next step is asked for."


@dataclass(frozen=True)
class Material:
    """What training draws from; everything in pairs of source and target."""

    specs: tuple[AdapterSpec, AdapterSpec]
    corpora: tuple[Corpus, Corpus]
    coupling: Float[np.ndarray, "source target"] | None
    "The alignment's, refined."
    pseudo: tuple[Corpus, Corpus] | None
    "Each corpus in the other's language, segment by segment, where there is an alignment or the truth was given."
    segments: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]
    "Segments to train on, the shortest first."
    held_out: tuple[Batch, Batch]
    models: tuple[NgramModel, NgramModel]
    "Language models of the segments to train on."
    bigrams: tuple[Float[Tensor, "contexts items"], Float[Tensor, "contexts2 items2"]] | None
    "Their log P(item | item before), where the prior is used."


def prepare(
    languages: tuple[Language, Language],
    specs: tuple[AdapterSpec, AdapterSpec],
    alignment: Alignment | None,
    config: TranslatorConfig,
    paired: tuple[Corpus, Corpus] | None = None,
) -> Material:
    """Split, count, and translate with the dictionary, unless the true translations are given as `paired`.

    Raises UserError where a side has too few segments of at most `max_length`.
    """
    training = config.training
    kept, held, models = [], [], []
    for language in languages:
        usable = short_segments(language.corpus, training.max_length)
        if len(usable) <= training.held_out:
            raise UserError(
                f"{language.name} has {len(usable)} segments of 1 to {training.max_length} positions, of which "
                f"{training.held_out} are held out: give more text, raise max_length or lower held_out"
            )
        shuffled = np.random.default_rng(training.seed).permutation(usable)
        held.append(batch_of(language.corpus, shuffled[: training.held_out]).to(training.device))
        rest = shuffled[training.held_out :]
        kept.append(rest[np.argsort(np.diff(language.corpus.segments)[rest], kind="stable")])
        models.append(fit_ngrams(texts_of(language.corpus, kept[-1]), len(language.items), config.lm_order))
    corpora, both = (languages[0].corpus, languages[1].corpus), (models[0], models[1])
    coupling, pseudo = None, paired
    if alignment is not None:
        coupling = refine(alignment.coupling, corpora, specs, both, config.lm_weight, config.refinements, training.seed)
    if coupling is not None and paired is None and config.losses.pseudo_parallel.is_used:
        rng = np.random.default_rng(training.seed) if config.drawn else None
        pseudo = pseudo_parallel(corpora, specs, coupling, both, config.lm_weight, rng)
    bigrams = None
    if config.losses.prior.is_used:
        bigrams = bigram_matrix(both[0]).to(training.device), bigram_matrix(both[1]).to(training.device)
    return Material(specs, corpora, coupling, pseudo, (kept[0], kept[1]), (held[0], held[1]), both, bigrams)


def train(
    source: Language,
    target: Language,
    alignment: Alignment | None = None,
    config: TranslatorConfig = TranslatorConfig(),  # noqa: B008  (frozen)
    modalities: tuple[str | None, str | None] = (None, None),
    resume: State | None = None,
    paired: tuple[Corpus, Corpus] | None = None,
    team: Team = Team(),  # noqa: B008  (frozen)
) -> Generator[Step, None, Translator]:
    """Train until the steps, the budget or the patience are used up; the translator of the best criterion.

    With `resume`, the state of an earlier step with the same languages and configuration, training goes on as if it had
    never stopped. With `paired`, the true translation of every segment of the source and of the target, these take the
    place of pseudo-parallel text: the supervised ceiling of the same network. With a `team` of several processes, which
    must all be given the same, a step is that of one process that accumulates all their batches.

    Raises UserError where a side is empty or too short, the backbone does not fit the modality, the alignment or the
    state is of other vocabularies, or memory runs out.
    """
    languages = (source, target)
    if choose(STARTS, config.start, "start"):
        check_alignment(alignment, languages)
    else:
        alignment = None
    choose(PRECISIONS, config.training.precision, "precision")
    specs = spec_of(source, modalities[0]), spec_of(target, modalities[1])
    material = prepare(languages, specs, alignment, config, paired)
    network = seeded_network(languages, specs, material.coupling, config)
    learner = Learner.fresh(network, config, team)
    record = {"step": 0, "best": -1.0, "best_step": 0, "looks": 0, "history": []}
    best = weights_of(network)
    if resume is not None:
        best = learner.restore(resume, specs)
        record = {**resume.record, "history": list(resume.record["history"])}
    began, total = monotonic(), config.training.steps
    while record["step"] < total and record["looks"] < config.training.patience:
        with knobs_of_memory(config.training):
            losses = learner.step(material, record["step"])
        record["step"] += 1
        over = config.training.budget > 0 and team.mean([monotonic() - began])[0] > config.training.budget
        criterion, is_best = None, False
        if record["step"] % config.training.evaluate_every == 0 or record["step"] == total or over:
            with knobs_of_memory(config.training):
                criterion = judged_together(network, material, config.training, team)
            is_best = criterion.value > record["best"]
            record["history"].append([record["step"], criterion.value])
            record["looks"] = 0 if is_best else record["looks"] + 1
            if is_best:
                record |= {"best": criterion.value, "best_step": record["step"]}
                best = weights_of(network)

        yield Step(record["step"], total, losses, criterion, is_best, partial(learner.state, best, record))
        if over:
            break
    network.load_state_dict(best)
    items = source.items, target.items
    return Translator((source.name, target.name), items, specs, config, network.eval(), dict(record))


def judged_together(network: Network, material: Material, training: TrainingConfig, team: Team) -> Criterion:
    """The criterion, the same for every process, so that all stop at the same step."""
    found = judge_network(network, material.held_out, material.models, training.max_length)
    there, back, first, second = team.mean([*found.round_trip, *found.fluency])
    return Criterion((there, back), (first, second))


@contextmanager
def knobs_of_memory(training: TrainingConfig) -> Iterator[None]:
    """Raises UserError, which says what to lower, where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory at batch_size {training.batch_size}, max_length {training.max_length} and held_out "
            f"{training.held_out}: lower batch_size and raise accumulate, or lower one of the others "
            f"({str(error).splitlines()[0]})"
        ) from None


def check_alignment(alignment: Alignment | None, languages: tuple[Language, Language]) -> None:
    """Raises UserError where there is none, or it is of other vocabularies than the languages'."""
    if alignment is None:
        raise UserError("the start is alignment and none was given: give one, or choose the start random")
    for name, items, language in zip(
        ("source", "target"), (alignment.source_items, alignment.target_items), languages, strict=True
    ):
        if items != language.items:
            raise UserError(
                f"the alignment's {name} vocabulary ({len(items):,} items) is not that of {language.name} "
                f"({len(language.items):,} items): align these two languages first"
            )


@dataclass(frozen=True)
class Learner:
    """A network with its critic and their optimisers."""

    network: Network
    critic: nn.Module
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    "Of the network, and of the critic."
    config: TranslatorConfig
    team: Team

    @classmethod
    def fresh(cls, network: Network, config: TranslatorConfig, team: Team) -> "Learner":
        d = network.backbone.d_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed + 1)
            critic = nn.Sequential(nn.Linear(d, d), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(d, 1))
        critic = critic.to(config.training.device)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        team.copy_first(trained)
        lr = config.training.lr
        optimisers = torch.optim.AdamW(trained, lr=lr), torch.optim.AdamW(critic.parameters(), lr=lr)
        return cls(network, critic, optimisers, config, team)

    def step(self, material: Material, number: int) -> dict[str, float]:
        """One step of the network, and of the critic where there is one; the losses."""
        training = self.config.training
        devices = [training.device] if training.device.startswith("cuda") else []
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = training.rate(number)
        sums: dict[str, float] = {}
        self.network.train()
        with torch.random.fork_rng(devices=devices):
            for part in range(training.accumulate):
                batch = self.team.rank * training.accumulate + part
                seed = (training.seed * 1_000_003 + number) * SEEDS_A_STEP + batch
                torch.manual_seed(seed)
                generator = torch.Generator().manual_seed(seed)
                kind = training.device.split(":")[0]
                bfloat16 = training.precision == "bfloat16"
                with torch.autocast(kind, dtype=torch.bfloat16, enabled=bfloat16):
                    losses, weighted, critic = self.losses(material, number, generator)
                (weighted / training.accumulate).backward()
                if critic is not None:
                    (critic / training.accumulate).backward()
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.item() / training.accumulate
        for module, optimiser in zip((self.network, self.critic), self.optimisers, strict=True):
            self.team.average([one.grad for one in module.parameters() if one.grad is not None])
            nn.utils.clip_grad_norm_(module.parameters(), training.clip)
            optimiser.step()
        return dict(zip(sums, self.team.mean(list(sums.values())), strict=True))

    def losses(
        self, material: Material, number: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""], Float[Tensor, ""] | None]:
        """The losses on one batch of each side, their weighted sum, and the critic's own loss where it is used."""
        weights = self.config.losses
        found: dict[str, Tensor] = {}
        latents: list[Latent] = []

        def add(name: str, value: Float[Tensor, ""]) -> None:
            found[name] = found.get(name, 0.0) + value

        for side in (0, 1):
            rows = self.draw(material, side, generator)
            real = batch_of(material.corpora[side], rows).to(self.config.training.device)
            if weights.denoise(number) or self.on_latents(number):
                size = material.specs[side].size
                noisy = corrupt(real, size, self.config.noise, generator, self.network.aligned)
                latents.append(self.network.encode(side, noisy))
                add("denoise", self.network.loss(side, latents[-1], real))
                add("bottleneck", latents[-1].divergence)
            if material.pseudo is not None and weights.pseudo_parallel(number):
                told = batch_of(material.pseudo[side], rows).to(self.config.training.device)
                noise = replace(self.config.noise, shuffle=0.0)
                noisy = corrupt(told, material.specs[1 - side].size, noise, generator, self.network.aligned)
                add("pseudo_parallel", self.network.loss(side, self.network.encode(1 - side, noisy), real))
            if weights.back_translation(number) or weights.prior(number):
                told = self.translated(side, real)
                if weights.back_translation(number):
                    add("back_translation", self.network.loss(side, self.network.encode(1 - side, told), real))
                if weights.prior(number) and material.specs[1 - side].modality == "symbols":
                    add("prior", self.prior(side, real, told, material.bigrams[1 - side]))
        critic = None
        if weights.adversarial(number):
            self.critic.requires_grad_(False)
            logits = [self.critic(latent.positions)[:, 0] for latent in latents]
            self.critic.requires_grad_(True)
            fixed = [self.critic(latent.positions.detach())[:, 0] for latent in latents]
            smoothing = self.config.training.critic_smoothing
            found["adversarial"] = sum(fooling_loss(one, side) for side, one in enumerate(logits))
            critic = sum(critic_loss(one, side, smoothing) for side, one in enumerate(fixed))
            found["critic"] = critic.detach()
        if weights.moments(number):
            found["moments"] = moment_distance(latents[0].positions, latents[1].positions)
        weighted = sum(getattr(weights, name)(number) * value for name, value in found.items() if name != "critic")
        return found, weighted, critic

    def on_latents(self, number: int) -> bool:
        """Whether a loss on the latents of both sides is in use."""
        weights = self.config.losses
        return bool(weights.adversarial(number) or weights.moments(number) or weights.bottleneck(number))

    def draw(self, material: Material, side: int, generator: torch.Generator) -> Int[np.ndarray, "b"]:
        """Segments of about one length: little is padded, and no translation waits for a much longer one."""
        segments, size = material.segments[side], self.config.training.batch_size
        width = min(len(segments), max(4 * size, len(segments) // 20))
        first = int(torch.randint(len(segments) - width + 1, (1,), generator=generator))
        return segments[first + torch.randint(width, (size,), generator=generator).numpy()]

    def translated(self, side: int, batch: Batch) -> Batch:
        """The batch in the other language, as the network stands."""
        self.network.eval()
        told = translate_batch(self.network, side, batch, DecodingConfig(max_length=self.config.training.max_length))
        self.network.train()
        return told

    def prior(
        self, side: int, real: Batch, told: Batch, bigrams: Float[Tensor, "contexts items"]
    ) -> Float[Tensor, ""]:
        """Cross entropy of the soft translation of `real` around its greedy one, under the other's bigrams."""
        other, latent = 1 - side, self.network.encode(side, real)
        adapter = self.network.adapters[other]
        assert isinstance(adapter, Symbols), "a language model reads symbols"
        before = None if self.network.aligned else opened(told, adapter.size)
        mask = told.mask if self.network.aligned else closed(told, adapter.size).mask
        said = adapter.scores(self.network.hidden(other, latent, before)).softmax(-1)[..., : adapter.size]
        return prior_cost(said, bigrams.to(said), mask)

    def state(self, best: dict[str, Tensor], record: dict) -> State:
        """Everything that later steps depend on."""
        tensors = {f"best.{name}": value for name, value in best.items()}
        for name, module in (("network", self.network), ("critic", self.critic)):
            tensors |= {f"{name}.{key}": value for key, value in weights_of(module).items()}
        for number, optimiser in enumerate(self.optimisers):
            for index, values in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{number}.{index}.{key}": value.clone() for key, value in values.items()}
        return State(tensors, {**record, "history": [list(look) for look in record["history"]]})

    def restore(self, state: State, specs: tuple[AdapterSpec, AdapterSpec]) -> dict[str, Tensor]:
        """Take the state on; the best weights so far. Raises UserError where it is of another network."""

        def part(prefix: str) -> dict[str, Tensor]:
            device = self.config.training.device
            return {k[len(prefix) :]: v.to(device) for k, v in state.tensors.items() if k.startswith(prefix)}

        try:
            self.network.load_state_dict(part("network."))
            self.critic.load_state_dict(part("critic."))
        except RuntimeError as error:
            sizes = " and ".join(f"{spec.size:,}" for spec in specs)
            raise UserError(
                f"the checkpoint does not fit languages of {sizes} items and this configuration: resume with those it "
                f"was trained with, or start anew ({str(error).splitlines()[-1].strip()})"
            ) from None
        for number, optimiser in enumerate(self.optimisers):
            fresh = optimiser.state_dict()
            found: dict[int, dict[str, Tensor]] = {}
            for key, value in state.tensors.items():
                if key.startswith(f"optimiser.{number}."):
                    index, name = key.split(".")[2:]
                    found.setdefault(int(index), {})[name] = value
            optimiser.load_state_dict({**fresh, "state": found})
        return part("best.")


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def bigram_matrix(model: NgramModel) -> Float[Tensor, "contexts items"]:
    """log P(item | context) for every item as context, and the beginning last."""
    contexts = np.append(np.arange(model.size), model.begin)
    found = model.log_probability(contexts[:, None], np.tile(np.arange(model.size), (len(contexts), 1)))
    return torch.from_numpy(found).float()
