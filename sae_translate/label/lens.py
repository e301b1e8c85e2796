"""The logit lens: what a latent's decoder direction would make the model say."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def logit_lens(
    directions: Float[Tensor, "latents d"],
    unembedding: Float[Tensor, "d vocabulary"],
    k: int = 10,
    block: int = 1024,
) -> tuple[Int[Tensor, "latents k"], Float[Tensor, "latents k"]]:
    """The k tokens each direction promotes most, and their logits standardised over the vocabulary.

    The final norm's scale should be folded into `unembedding`. Source: nostalgebraist, "interpreting GPT: the logit
    lens" (2020), applied to decoder rows instead of activations.
    """
    tokens, scores = [], []
    for part in directions.split(block):
        logits = part.to(unembedding.dtype) @ unembedding
        logits = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True).clamp_min(1e-12)
        top = logits.topk(min(k, logits.shape[1]), dim=1)
        tokens.append(top.indices)
        scores.append(top.values)
    return torch.cat(tokens), torch.cat(scores)
