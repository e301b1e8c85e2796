r"""Train an SAE of many latents on the English model of benchmarks/english/train.py, for decipherment at scale.

    OMP_NUM_THREADS=1 python benchmarks/decipherment/wide_sae.py --d-sae 4096
    python benchmarks/decipherment/run.py --model .bench/english/model --sae .bench/english/sae-4096 --d-sae 4096 \
        --dataset .bench/english/read.json --hook-name blocks.1.hook_resid_post --vocabulary 4000 --seeds 1 \
        --control-seeds 0

And with 16,384 latents on a model of 12,000 tokens, whose own SAE is not waited for once its model is there:

    OMP_NUM_THREADS=1 python benchmarks/english/train.py --recipe benchmarks/english/wide.json \
        --out .bench/english_wide --threads 1
    OMP_NUM_THREADS=1 python benchmarks/decipherment/wide_sae.py --english .bench/english_wide --d-sae 16384 --epochs 1
    python benchmarks/decipherment/run.py --model .bench/english_wide/model --sae .bench/english_wide/sae-16384 \
        --d-sae 16384 --dataset .bench/english_wide/read.json --hook-name blocks.1.hook_resid_post \
        --vocabulary 10000 --seeds 1 --control-seeds 0
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from material import BENCH, Model

from sae_translate.cli.progress import returned
from sae_translate.sae.train import Activations, SaeStep, SaeTrainingConfig, train_sae

HOOK = "blocks.1.hook_resid_post"
BLOCK = 32_768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", type=Path, default=BENCH / "english", help="folder of the model and its text")
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = Model(given.english / "model", HOOK)
    documents = json.loads((given.english / "read.json").read_text(encoding="utf-8"))
    tokens, offsets, _ = model.tokens(documents)
    x = torch.from_numpy(model.activations(tokens, offsets)[: given.tokens])

    def blocks() -> Iterator[torch.Tensor]:
        yield from x.split(BLOCK)

    metadata = {
        "model_name": f"{model.name}/model", "model_class_name": "AutoModelForCausalLM", "hook_name": HOOK,
        "context_size": model.context_size, "prepend_bos": True, "dataset_path": "read.json",
    }  # fmt: skip
    config = SaeTrainingConfig(d_sae=given.d_sae, k=8, epochs=given.epochs, batch_size=2048)
    steps = train_sae(Activations(blocks, len(x), x.shape[1], metadata), config)
    returned(steps, told).save_inference_model(given.english / f"sae-{given.d_sae}")


def told(step: SaeStep) -> None:
    print(f"{step.n_tokens:,} of {step.total:,}  loss {step.loss:.1f}  explained {step.explained_variance:.3f}  "
          f"idle {step.dead:,}  cpu {time.process_time():.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
