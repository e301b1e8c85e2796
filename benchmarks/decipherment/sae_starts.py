"""What a TopK SAE reaches by where its latents start: variance explained and dead latents on text it never saw, CPU.

    OMP_NUM_THREADS=1 python benchmarks/decipherment/sae_starts.py --d-sae 512 4096

Activations of the English model (benchmarks/english/train.py), the first `--tokens` to train on, once, and the last
200,000 to measure. A latent is dead that never fires on these.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from material import BENCH, Model

from sae_translate.cli.progress import returned
from sae_translate.sae.start import STARTS
from sae_translate.sae.train import Activations, SaeTrainingConfig, measure_sae, train_sae

HELD_OUT, BLOCK = 200_000, 32_768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", type=Path, default=BENCH / "english", help="folder of the model and its text")
    parser.add_argument("--d-sae", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--start", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = Model(given.english / "model", "blocks.1.hook_resid_post")
    tokens, offsets, _ = model.tokens(json.loads((given.english / "read.json").read_text(encoding="utf-8")))
    x = torch.from_numpy(model.activations(tokens, offsets))
    activations, held_out = (
        Activations(lambda part=part: iter(part.split(BLOCK)), len(part), x.shape[1], {"hook_name": model.hook_name})
        for part in (x[: given.tokens], x[-HELD_OUT:])
    )
    for d_sae in given.d_sae:
        for start in given.start:
            config = SaeTrainingConfig(d_sae=d_sae, k=8, epochs=1, batch_size=2048, start=start, seed=given.seed)
            began = time.process_time()
            sae = returned(train_sae(activations, config))
            row = {"d_sae": d_sae, "start": start, "tokens": activations.n_tokens, "seed": given.seed,
                   "cpu_seconds": round(time.process_time() - began, 1)}  # fmt: skip
            print(json.dumps(row | measure_sae(sae, held_out)), flush=True)


if __name__ == "__main__":
    main()
