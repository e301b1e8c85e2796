"""The decoder head: a frozen language model whose word-embedding map alone is relearnt, on text in a cipher.

The model reads and predicts words; the text is in symbols. A doubly stochastic plan P[symbol, word] gives the model
sum_w P[c, w] E[w] for a symbol c, and c the chance sum_w p(w) P[c, w]. Columns of P sum to 1, so these chances do too,
and the loss is a likelihood: it cannot fall below that of the intact model by cheating, as a free map's does.
After Radek Osmulski's decoder head (Earth Species Project, 2020), with Mena et al. 2018, "Learning latent permutations
with Gumbel-Sinkhorn networks" (arXiv 1802.08665), or the penalty of AutoShuffleNet (Lyu et al. 2019, arXiv 1901.08624).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activation_cache.errors import UserError, choose

TINY = 1e-12
TOGETHER = 1024
"Segments that pass through the model at once where no gradient is taken."
Body = Callable[[Tensor], Tensor]
"Embeddings [batch, time, d] -> scores of the next word [batch, time, words]; its own weights stay as they are."


@dataclass(frozen=True)
class HeadConfig:
    """Knobs of `relearn`."""

    steps: int = 600
    "Gradient steps."
    batch: int = 32
    "Segments a step."
    learning_rate: float = 0.2
    "Adam's, on the logits of the plan; falls to nothing along a cosine."
    plan: str = "sinkhorn"
    "How logits become a plan: sinkhorn, or shuffle (normalised once, with AutoShuffleNet's penalty)."
    iterations: int = 20
    "Of Sinkhorn's normalisation."
    penalty: float = 0.05
    "Weight of the penalty of shuffle, per row and column."
    trust: float = 6.0
    "How much larger the logit of a start's sure pair is than that of an impossible one."
    slack: float = 0.05
    "By how many nats the loss may lie below the intact model's, as two texts of one language may fairly differ."
    seed: int = 0
    "Seeds the batches and, without a start, the first logits."


@dataclass(frozen=True)
class Relearnt:
    """Which word every symbol is. Frozen."""

    plan: Float[Tensor, "symbols words"]
    "Doubly stochastic: P(word | symbol)."
    losses: tuple[float, ...]
    "Cross-entropy of every step's batch, in nats a position."
    loss: float
    "Cross-entropy of the whole text in symbols under the last plan."
    intact: float
    "Cross-entropy of the intact model on text of its own language."
    believed: bool
    "Whether the loss is no lower than the intact model's own, less the slack."

    def __call__(self, symbols: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """The likeliest word of each symbol."""
        return self.plan.argmax(dim=1)[symbols]


def sinkhorn(logits: Float[Tensor, "n n"], iterations: int) -> Float[Tensor, "n n"]:
    """The doubly stochastic matrix of these logits; columns sum to 1 exactly."""
    for _ in range(iterations):
        logits = logits - logits.logsumexp(dim=1, keepdim=True)
        logits = logits - logits.logsumexp(dim=0, keepdim=True)
    return logits.exp()


def shuffle(logits: Float[Tensor, "n n"], iterations: int) -> Float[Tensor, "n n"]:
    """Rows and then columns divided by their sum, once."""
    return sinkhorn(logits, 1)


PLANS = {"sinkhorn": sinkhorn, "shuffle": shuffle}
"How logits become a plan."


def shuffle_penalty(plan: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Sum over rows and columns of their l1 norm less their l2 norm: 0 exactly for permutations."""
    return sum((plan.abs().sum(dim) - plan.norm(dim=dim)).sum() for dim in (0, 1))


def symbol_loss(
    body: Body,
    embedding: Float[Tensor, "words d"],
    plan: Float[Tensor, "symbols words"],
    symbols: Int[Tensor, "batch time"],
    outputs: bool,
) -> Float[Tensor, ""]:
    """Cross-entropy of every symbol given those before it; with `outputs` off only inputs are in symbols, and a
    symbol's number is its word's."""
    chances = torch.softmax(body((plan @ embedding)[symbols[:, :-1]]), dim=-1)
    following = symbols[:, 1:]
    told = (chances * plan[following]).sum(-1) if outputs else chances.gather(-1, following[..., None])[..., 0]
    return -told.clamp_min(TINY).log().mean()


def over_text(loss: Callable[[Tensor], Tensor], text: Int[Tensor, "segments time"]) -> float:
    """The mean of a loss over a whole text, some segments at a time, without gradients."""
    with torch.no_grad():
        return sum(float(loss(part)) * len(part) for part in text.split(TOGETHER)) / len(text)


def intact_loss(body: Body, embedding: Float[Tensor, "words d"], text: Int[Tensor, "segments time"]) -> float:
    """The model's cross-entropy on text of its own."""

    def loss(part: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(body(embedding[part[:, :-1]]).flatten(0, 1), part[:, 1:].flatten())

    return over_text(loss, text)


def transitions_of(body: Body, embedding: Float[Tensor, "words d"]) -> Float[Tensor, "words words"]:
    """The model's own one-step function: P(next word | this word, nothing before it). A start can be matched to it."""
    with torch.no_grad():
        return torch.softmax(body(embedding[:, None])[:, 0], dim=-1)


def first_logits(start: Float[Tensor, "n n"] | None, n: int, config: HeadConfig) -> Float[Tensor, "n n"]:
    """Logits of a start, or of noise."""
    if start is None:
        return 0.01 * torch.randn(n, n, generator=torch.Generator().manual_seed(config.seed))
    return config.trust * start / start.amax(dim=1, keepdim=True).clamp_min(TINY)


def relearning(
    body: Body,
    embedding: Float[Tensor, "words d"],
    symbols: Int[Tensor, "segments time"],
    config: HeadConfig,
    start: Float[Tensor, "words words"] | None = None,
    outputs: bool = True,
) -> Iterator[tuple[float, Float[Tensor, "words words"]]]:
    """Loss and plan of every step. The body's weights are only read."""
    made = choose(PLANS, config.plan, "plan")
    logits = first_logits(start, len(embedding), config).to(embedding).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    draw = torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        rows = torch.randint(len(symbols), (config.batch,), generator=draw).to(symbols.device)
        plan = made(logits, config.iterations)
        loss = symbol_loss(body, embedding, plan, symbols[rows], outputs)
        whole = loss + config.penalty * shuffle_penalty(plan) / len(plan) if config.plan == "shuffle" else loss
        (logits.grad,) = torch.autograd.grad(whole, [logits])
        optimiser.step()
        schedule.step()
        yield float(loss.detach()), plan.detach()


def relearn(
    body: Body,
    embedding: Float[Tensor, "words d"],
    symbols: Int[Tensor, "segments time"],
    text: Int[Tensor, "others length"],
    config: HeadConfig = HeadConfig(),
    start: Float[Tensor, "words words"] | None = None,
    outputs: bool = True,
) -> Relearnt:
    """Learn which word every symbol is, such that a frozen model finds the text in symbols likely.

    `text` is some of the model's own language, to know its intact loss by; `start` a plan to begin from (an alignment's
    posterior). Raises `UserError` for symbols that the model has no word for, and texts too short to predict in.
    """
    for name, given in (("symbols", symbols), ("text", text)):
        if given.shape[0] < 1 or given.shape[1] < 2:
            raise UserError(f"{name} has {given.shape[0]} segments of {given.shape[1]} positions: give 1 of 2 or more")
        if int(given.max()) >= len(embedding) or int(given.min()) < 0:
            raise UserError(f"{name} runs from {int(given.min())} to {int(given.max())} and the model has "
                            f"{len(embedding)} words: give as many symbols as words")  # fmt: skip
    losses, plan = [], None
    for loss, plan in relearning(body, embedding, symbols, config, start, outputs):  # noqa: B007
        losses.append(loss)
    intact = intact_loss(body, embedding, text)
    final = over_text(lambda part: symbol_loss(body, embedding, plan, part, outputs), symbols)
    return Relearnt(plan, tuple(losses), final, intact, final > intact - config.slack)
