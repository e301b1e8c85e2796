"""Where the latents of a TopK SAE begin: at random, or at activations, to which dead ones return."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from sae_lens.saes.sae import TrainingSAE, TrainStepOutput
from torch import Tensor
from torch.nn.functional import normalize

DATA_SHARE = 0.8
"Of the activation that a latent starts at; the rest is a random direction."
SCALED_ON = 1024
"Positions on which the encoder's scale is fitted."


@torch.no_grad()
def start_at_data(sae: TrainingSAE, centred: Float[Tensor, "n d_in"], generator: torch.Generator) -> None:
    """Decoder rows become activations of length 1, drawn without replacement; the encoder the same, scaled to fit.

    Every latent then answers something from the first step on. Datapoint initialisation, by Anthropic and Pierre
    Peigne independently, with Anthropic's share of a random direction (osu-nlp-group.github.io/saev). Rows of length
    0.1, as SAELens begins them, would have to grow first, and the latents that fire earliest outgrow the rest.
    """
    d_sae = len(sae.W_dec)
    drawn = torch.randperm(len(centred), generator=generator).repeat(-(-d_sae // len(centred)))[:d_sae]
    rows = normalize(centred[drawn.to(centred.device)], dim=1)
    sae.W_dec.copy_(normalize(DATA_SHARE * rows + (1 - DATA_SHARE) * normalize(sae.W_dec, dim=1), dim=1))
    sae.W_enc.copy_(sae.W_dec.T)
    some = centred[:SCALED_ON]
    x_hat = sae.decode(sae.encode(some + sae.b_dec)) - sae.b_dec
    sae.W_enc *= (some * x_hat).sum() / x_hat.pow(2).sum().clamp_min(1e-9)


@torch.no_grad()
def restart_dead(
    sae: TrainingSAE, optimizer: torch.optim.Adam, dead: Any, output: TrainStepOutput, generator: torch.Generator
) -> Any:
    """Begin dead latents again at activations of this batch, drawn by the square of their loss; their numbers.

    Their rows get the mean lengths of the live ones, and Adam forgets them. Resampling (Bricken et al. 2023, Towards
    Monosemanticity, appendix), but for the encoder's length, which is a fifth of that there: a TopK's latents compete.
    No more begin again than the batch has positions.
    """
    x, loss = output.sae_in, (output.sae_in - output.sae_out).pow(2).sum(1)
    among = dead.nonzero()[: len(x), 0]
    if not len(among) or bool(dead.all()):
        return among[:0]
    weights = loss.cpu().double().pow(2).clamp_min(1e-30)
    rows = normalize(x[torch.multinomial(weights, len(among), generator=generator).to(x.device)] - sae.b_dec, dim=1)
    for rows_of, new in ((sae.W_dec, rows), (sae.W_enc.T, rows), (sae.b_enc[:, None], 0 * rows[:, :1])):
        rows_of[among] = new * rows_of[~dead].norm(dim=1).mean()
    for parameter in (sae.W_dec, sae.W_enc, sae.b_enc):
        state = optimizer.state[parameter]
        for name, live in (("exp_avg", 0), ("exp_avg_sq", 1)):
            rows_of = state[name].T if parameter is sae.W_enc else state[name]
            rows_of[among] = live * rows_of[~dead].mean(0)
    return among


def _start_at_random(sae: TrainingSAE, centred: Float[Tensor, "n d_in"], generator: torch.Generator) -> None:
    """As SAELens begins."""


STARTS: dict[str, Callable[[TrainingSAE, Float[Tensor, "n d_in"], torch.Generator], None]] = {
    "data": start_at_data,
    "random": _start_at_random,
}
