"""The recipe for a small language model: a byte-level BPE tokenizer and a GPT-NeoX, trained from documents."""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from activation_cache.errors import UserError
from sae_translate.sae.train import SaeTrainingConfig

END_OF_TEXT = "<|endoftext|>"
IGNORED = -100


@dataclass(frozen=True)
class LanguageModelConfig:
    """A small GPT-NeoX and how to train it."""

    vocabulary: int
    "Tokens of the byte-level BPE, the one special token included."
    d_model: int
    n_layers: int
    n_heads: int
    tokens: int
    "Tokens to train on; the documents are read again where they are fewer."
    d_mlp: int | None = None
    "Width of the MLP; 4 d_model by default."
    context_size: int = 128
    "Most positions fed at once, the token that begins them included."
    batch_tokens: int = 4096
    "Positions in one step, about."
    lr: float = 3e-3
    "Highest learning rate; it warms up over the first twentieth, then falls as a cosine to a twentieth of itself."
    weight_decay: float = 0.05
    bfloat16: bool = False
    "Whether matrix products run in bfloat16: faster where the processor can."
    seed: int = 0


@dataclass(frozen=True)
class DemoRecipe:
    """How the embedded model and SAE are made."""

    language: str
    "Of the stories: en or de."
    stories: int
    "How many stories the model is trained on."
    seed: int
    "Of the stories; the demo itself reads stories of other seeds."
    model: LanguageModelConfig
    hook_name: str
    "Where the SAE reads the model."
    sae_tokens: int
    "Tokens of the same stories that the SAE is trained on."
    sae: SaeTrainingConfig


@dataclass(frozen=True)
class LanguageModelStep:
    """How training goes, at one step."""

    n_tokens: int
    total: int
    loss: float
    "Cross-entropy in nats a token, mean since the last one."


@dataclass(frozen=True)
class TrainedLanguageModel:
    """What training returns."""

    network: Any
    "GPTNeoXForCausalLM."
    tokenizer: Any
    "PreTrainedTokenizerFast."


def train_tokenizer(documents: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most so many tokens; `<|endoftext|>` begins, ends and pads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )


def train_language_model(
    documents: Sequence[str], config: LanguageModelConfig, device: str = "cpu"
) -> Generator[LanguageModelStep, None, TrainedLanguageModel]:
    """Train tokenizer and model, a `LanguageModelStep` after every hundredth; the generator returns both.

    Every document is cut into contexts that begin with `<|endoftext|>`, as a cache feeds them; none mixes documents.
    Raises UserError where there are no documents or the heads do not divide the width.
    """
    if not documents:
        raise UserError("no documents to train a language model on")
    if config.d_model % config.n_heads:
        raise UserError(f"d_model {config.d_model} must be a multiple of n_heads {config.n_heads}")
    tokenizer = train_tokenizer(documents, config.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = GPTNeoXForCausalLM(_architecture(config, len(tokenizer))).to(device)
    bos = tokenizer.bos_token_id
    contexts = _contexts(tokenizer(list(documents), verbose=False)["input_ids"], config.context_size, bos)
    optimizer = torch.optim.AdamW(_groups(network, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bfloat16)
    seen, shown, losses = 0, 0, []
    for batch in _batches(contexts, config, bos):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule(seen / config.tokens)
        with half:
            loss, n_learnt = _loss(network, batch.to(device), bos)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        seen += n_learnt
        if seen * 100 // config.tokens > shown or seen >= config.tokens:
            shown = seen * 100 // config.tokens
            yield LanguageModelStep(min(seen, config.tokens), config.tokens, torch.stack(losses).mean().item())
            losses = []
        if seen >= config.tokens:
            break
    return TrainedLanguageModel(network.eval(), tokenizer)


@torch.no_grad()
def evaluate_language_model(trained: Any, documents: Sequence[str], context_size: int) -> float:
    """Cross-entropy in nats a token on these documents, of whatever has a network and its tokenizer."""
    bos = trained.tokenizer.bos_token_id
    encoded = trained.tokenizer(list(documents), verbose=False)["input_ids"]
    contexts = sorted(_contexts(encoded, context_size, bos), key=len)
    total, n = 0.0, 0
    for start in range(0, len(contexts), 32):
        batch = torch.from_numpy(_padded(contexts[start : start + 32], bos)).to(trained.network.device)
        loss, n_learnt = _loss(trained.network, batch, bos)
        total, n = total + loss.item() * n_learnt, n + n_learnt
    return total / n


def _loss(network: Any, inputs: Int[Tensor, "rows positions"], pad: int) -> tuple[Float[Tensor, ""], int]:
    """Mean cross-entropy of the next token, and how many were predicted."""
    targets = _targets(inputs, pad)
    hidden = network.base_model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
    learnt = targets != IGNORED
    logits = network.get_output_embeddings()(hidden[learnt])
    return torch.nn.functional.cross_entropy(logits.float(), targets[learnt]), int(learnt.sum())


def _padded(contexts: list[np.ndarray], pad: int) -> Int[np.ndarray, "rows positions"]:
    batch = np.full((len(contexts), max(map(len, contexts))), pad)
    for row, context in zip(batch, contexts, strict=True):
        row[: len(context)] = context
    return batch


def _architecture(config: LanguageModelConfig, vocabulary: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=config.d_model, num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads, intermediate_size=config.d_mlp or 4 * config.d_model,
        max_position_embeddings=config.context_size, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        use_parallel_residual=True, tie_word_embeddings=False, attention_dropout=0.0, hidden_dropout=0.0,
    )  # fmt: skip


def _groups(network: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(share: float) -> float:
    """The learning rate as a share of its highest: a linear rise over a twentieth, then a cosine to a twentieth."""
    if share < 0.05:
        return 0.02 + 0.98 * share / 0.05
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, (share - 0.05) / 0.95))) / 2


def _contexts(documents: list[list[int]], context_size: int, bos: int) -> list[np.ndarray]:
    length = context_size - 1
    return [
        np.asarray([bos, *document[start : start + length]], np.int64)
        for document in documents
        for start in range(0, len(document), length)
    ]


def _batches(
    contexts: list[np.ndarray], config: LanguageModelConfig, pad: int
) -> Iterator[Int[Tensor, "rows positions"]]:
    """Batches of contexts of like length, without end, in a new order every time round."""
    rng = np.random.default_rng(config.seed)
    lengths = np.asarray([len(context) for context in contexts])
    while True:
        order = rng.permutation(len(contexts))
        pools = [order[start : start + 2048] for start in range(0, len(order), 2048)]
        ordered = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
        groups = [group for pool in ordered for group in _cut(pool, lengths, config.batch_tokens)]
        for index in rng.permutation(len(groups)):
            yield torch.from_numpy(_padded([contexts[i] for i in groups[index]], pad))


def _cut(pool: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """The pool, sorted by length, in groups of about so many positions each."""
    groups, start = [], 0
    for end in range(1, len(pool) + 1):
        if end == len(pool) or (end + 1 - start) * lengths[pool[end]] > batch_tokens:
            groups.append(pool[start:end])
            start = end
    return groups


def _targets(inputs: Int[Tensor, "rows positions"], pad: int) -> Int[Tensor, "rows targets"]:
    """The next tokens. Padding is not learnt, but for the first of it, which ends the text."""
    targets = inputs[:, 1:].clone()
    before = inputs[:, :-1]
    padding = (targets == pad) & (before == pad)
    targets[padding] = IGNORED
    return targets
