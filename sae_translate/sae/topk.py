"""SAELens' TopK SAE whose training step computes with the active latents alone: the same losses, the same gradients."""

from typing import Any

import torch
from jaxtyping import Float, Int
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor
from typing_extensions import override


class ActiveTopKSAE(TopKTrainingSAE):
    """A TopK SAE of many latents, trained at about the cost of its encoder's one product.

    SAELens multiplies the latents out, the zeros too: four products of batch x d_sae x d_in backward and one forward,
    and as many for the auxiliary loss. Here only `x W_enc` is dense; what follows gathers and adds the rows of the
    active latents, as in Gao et al.'s kernels (arXiv 2406.04093, appendix D). The decoder's norms choose the latents
    and then cancel, as they do in SAELens' own loss.
    """

    def __init__(self, cfg: TopKTrainingSAEConfig, use_error_term: bool = False):
        super().__init__(cfg, use_error_term)
        self.W_enc.data = self.W_enc.data.T.contiguous().T

    @override
    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        super().process_state_dict_for_saving(state_dict)
        state_dict["W_enc"] = state_dict["W_enc"].contiguous()

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        x = step_input.sae_in
        norm = self.W_dec.detach().norm(dim=1) if self.cfg.rescale_acts_by_decoder_norm else torch.ones_like(self.b_enc)
        with torch.no_grad():
            bias = self.b_dec if self.cfg.apply_b_dec_to_input else torch.zeros_like(self.b_dec)
            encoder = self.W_enc * norm
            hidden = torch.addmm(self.b_enc * norm - bias @ encoder, x, encoder)
            chosen, index = hidden.topk(self.cfg.k, dim=1)
            chosen = chosen.relu()
        sae_out = self._decoded(x, index, chosen / norm[index]) + self.b_dec
        losses = {"mse_loss": (sae_out - x).pow(2).sum(1).mean()}
        losses["auxiliary_reconstruction_loss"] = self._auxiliary_loss(
            x, (x - sae_out).detach(), hidden, norm, step_input.dead_neuron_mask
        )
        return TrainStepOutput(
            sae_in=x, sae_out=sae_out, feature_acts=_sparse(index, chosen, self.cfg.d_sae), hidden_pre=hidden,
            loss=sum(losses.values()), losses=losses,
        )  # fmt: skip

    def _decoded(
        self, x: Float[Tensor, "n d_in"], index: Int[Tensor, "n k"], value: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n d_in"]:
        b_dec = self.b_dec if self.cfg.apply_b_dec_to_input else torch.zeros_like(self.b_dec)
        return _Decoded.apply(x, self.W_enc, self.b_enc, self.W_dec, b_dec, index, value)

    def _auxiliary_loss(
        self,
        x: Float[Tensor, "n d_in"],
        residual: Float[Tensor, "n d_in"],
        hidden: Float[Tensor, "n d_sae"],
        norm: Float[Tensor, "d_sae"],
        dead: Any,
    ) -> Float[Tensor, ""]:
        """What the dead latents leave of the residual, as SAELens weighs it."""
        among = () if dead is None or not self.cfg.aux_loss_coefficient else dead.nonzero()[:, 0]
        if not len(among):
            return x.new_tensor(0.0)
        most = self.cfg.d_in // 2
        value, within = hidden[:, among].topk(min(most, len(among)), dim=1, sorted=False)
        index = among[within]
        recovered = self._decoded(x, index, value / norm[index])
        loss = (recovered - residual).pow(2).sum(1).mean()
        return self.cfg.aux_loss_coefficient * min(len(among) / most, 1.0) * loss


class _Decoded(torch.autograd.Function):
    """Sum of the rows of W_dec at `index` times `value`, which are the encoder's outputs there, computed before.

    A value of 0 is a latent that the ReLU stopped: it learns nothing.
    """

    @staticmethod
    def forward(ctx, x, W_enc, b_enc, W_dec, b_dec, index, value):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, W_enc, W_dec, b_dec, index, value)
        return torch.nn.functional.embedding_bag(index, W_dec, per_sample_weights=value, mode="sum")

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, W_enc, W_dec, b_dec, index, value = ctx.saved_tensors
        d_sae = len(W_dec)
        of_value = torch.cat([
            (W_dec[i] @ g[:, :, None])[..., 0] for i, g in zip(index.split(CHUNK), grad.split(CHUNK), strict=True)
        ]) * (value != 0)
        of_b_enc = torch.zeros_like(W_dec[:, 0]).index_add_(0, index.flatten(), of_value.flatten())
        of_W_enc = torch.sparse.mm(_sparse(index, of_value, d_sae).t(), x) - of_b_enc[:, None] * b_dec
        of_W_dec = torch.sparse.mm(_sparse(index, value, d_sae).t(), grad)
        of_b_dec = -(W_enc @ of_b_enc) if ctx.needs_input_grad[4] else None
        return None, of_W_enc.T, of_b_enc, of_W_dec, of_b_dec, None, None


CHUNK = 256
"Positions whose decoder rows are gathered at once."


def _sparse(index: Int[Tensor, "n k"], value: Float[Tensor, "n k"], width: int) -> Float[Tensor, "n width"]:
    rows = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    return torch.sparse_coo_tensor(
        torch.stack([rows, index.flatten()]), value.flatten(), (len(index), width), check_invariants=False
    )
