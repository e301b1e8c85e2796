"""A cache for labelling, made in one call: recorded where it is missing, continued where it was interrupted."""

from collections.abc import Iterable
from pathlib import Path

from activation_cache.plan import RecordingConfig, plan_recording
from activation_cache.record import record as record_shards
from activation_cache.shards import ActivationCache


def record(
    out: str | Path,
    sae: str,
    model: str | None = None,
    dataset: str | None = None,
    documents: Iterable[str] | None = None,
    tokens: int | None = None,
    hook_name: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    overwrite: bool = False,
) -> ActivationCache:
    """The cache of an SAE's latents in the folder `out`; what is there of the same recording already is kept.

    Model, hook, context size and BOS come from the SAE's metadata. `documents` may stand in for a `dataset`. Raises
    UserError where something is missing, contradicts the SAE, or the folder holds another recording.
    """
    config = RecordingConfig(
        model=model,
        saes=(sae,),
        dataset=dataset,
        hook_names=(hook_name,) if hook_name else (),
        n_tokens=tokens,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    plan = plan_recording(config, documents)
    for _ in record_shards(plan, out, overwrite=overwrite, resume=not overwrite):
        pass
    return ActivationCache(out)
