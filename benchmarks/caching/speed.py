"""Recording against its floors and its peers: a bare Hugging Face forward stopped at the hook, that with the encoder's
GEMM, and eai-delphi, SAELens, nnsight and dictionary_learning through their public interfaces.

The shape of pythia-70m with random weights, the residual stream after layer 3, a TopK SAE (k = 32) with random weights,
contexts of 128 tokens, 16 in a batch. Everything takes turns, and in a turn does the same number of tokens, a shard of
ours; CPU seconds of its process, one thread; a ratio is the median over turns of (the other's time / recording's time).
Recording counts everything from the plan's tokens to files on disk: encoding, statistics, hashing, fsync. The first
turn warms up and is not counted. What is done once for a cache of any length (statistics sorted and written at its end)
is told apart; `state.py` measures the statistics over a million tokens. On a machine shared with others one turn's
forward may take a tenth more than the next one's: recording activations is also held against the network's own forward
inside it.

The GEMM's floor is taken twice: as one writes it, with fresh memory for every product, and with memory used again.
Peers get environments of their own under .bench/, made where they are not there, and run in processes of their own.
Activations: SAELens writes float32 to disk, ours and nnsight's pass float16, dictionary_learning keeps float32 in
memory.

    python benchmarks/caching/speed.py --out reports/caching_speed.json
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sae_lens
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from activation_cache import layout
from activation_cache.models import Model
from activation_cache.plan import RecordingConfig, RecordingPlan, plan_recording
from activation_cache.record import record

LAYER, K, CONTEXT, BATCH = 3, 32, 128, 16
HOOK = f"blocks.{LAYER}.hook_resid_post"
VOCABULARY = 50_304
WIDTHS = (1 << 14, 1 << 15)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HUB_NAME = "EleutherAI/pythia-70m"
BENCH = Path(__file__).resolve().parents[2] / ".bench"
DELPHI = tuple(f"delphi latents {d_sae}" for d_sae in WIDTHS)
PEERS = {
    "peers": {"float32": ("sae_lens activations", "dictionary_learning activations", *DELPHI), "bfloat16": DELPHI},
    "nnsight": {"float32": ("nnsight activations",), "bfloat16": ()},
}
"Which peers of `peers.py` run in which environment, by dtype."
PACKAGES = {"peers": ("sae-lens", "dictionary-learning", "eai-delphi"), "nnsight": ("nnsight",)}
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"Asked for by vllm, which delphi asks for and none of this uses; built for another torch, they break transformers."


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0, w1, ..., one a token."""
    inner = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="w0", eos_token="w0")


def model() -> Model:
    """pythia-70m's shape: 512 wide, 8 heads, rotary embeddings on a quarter of each head."""
    torch.manual_seed(0)
    shape = dict(vocab_size=VOCABULARY, hidden_size=512, num_hidden_layers=6, num_attention_heads=8,
                 intermediate_size=2048, max_position_embeddings=2048, rotary_pct=0.25)
    return Model("pythia-70m-shape", GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval(), tokenizer())


def sae(folder: Path, d_sae: int) -> Path:
    """A random TopK SAE in a SAELens folder."""
    torch.manual_seed(1)
    made = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=512, d_sae=d_sae, k=K))
    for key, value in dict(hook_name=HOOK, context_size=CONTEXT, prepend_bos=False,
                           model_name="pythia-70m-shape").items():
        setattr(made.cfg.metadata, key, value)
    made.save_model(folder)
    return folder


def documents(n_tokens: int) -> list[str]:
    """Random words, a document a context."""
    draw = np.random.default_rng(0).integers(1, VOCABULARY, size=(n_tokens // CONTEXT, CONTEXT))
    return [" ".join(f"w{i}" for i in row) for row in draw]


class Stop(Exception):
    """Ends the bare forward at the hook."""


def bare_forward(network: GPTNeoXForCausalLM, tokens: Tensor, use: Callable[[Tensor], None]) -> None:
    """Nothing but the network up to the hooked layer, batch by batch."""
    def stop(module: torch.nn.Module, args: tuple, output: Tensor | tuple) -> None:
        use(output[0] if isinstance(output, tuple) else output)
        raise Stop

    handle = network.gpt_neox.layers[LAYER].register_forward_hook(stop)
    with torch.inference_mode():
        for batch in tokens.split(BATCH):
            with contextlib.suppress(Stop):
                network.gpt_neox(input_ids=batch, use_cache=False)
    handle.remove()


def environment(name: str) -> Path:
    """The python of a peers' environment, made where it is not there, with the torch that runs here."""
    python, complete = BENCH / name / "bin" / "python", BENCH / name / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", BENCH / name], check=True)
        pip = [python, "-m", "pip", "--quiet"]
        torch_here = f"torch=={torch.__version__.split('+')[0]}"
        subprocess.run([*pip, "install", torch_here, *PACKAGES[name]], check=True)
        subprocess.run([*pip, "uninstall", "--yes", *UNWANTED], check=True)
        complete.touch()
    return python


def in_hub_cache(made: Model, home: Path) -> None:
    """The model as the hub's local cache would hold it, so that peers load it by its name."""
    repository = home / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    made.network.save_pretrained(snapshot)
    made.tokenizer.save_pretrained(snapshot)


@contextlib.contextmanager
def peers(folder: Path, dtype: str, said: dict[str, str]) -> Iterator[dict[str, Callable[[], float]]]:
    """Turns of the peers that could be prepared, by name; `said` gets what each is."""
    passes: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as stack:
        for name, by_dtype in PEERS.items():
            if not by_dtype[dtype]:
                continue
            command = [environment(name), Path(__file__).with_name("peers.py"), *by_dtype[dtype],
                       "--tokens", folder / "tokens.npy", "--out", folder / "peer", "--dtype", dtype]
            log = stack.enter_context(open(folder / f"{name}.log", "w"))
            child = stack.enter_context(subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"},
            ))
            stack.callback(child.stdin.close)
            told = json.loads(child.stdout.readline())
            said |= told["peers"]
            passes |= {peer: lambda child=child, peer=peer: _asked(child, peer) for peer in told["ready"]}
        yield passes


def _asked(child: subprocess.Popen, peer: str) -> float:
    print(peer, file=child.stdin, flush=True)
    answer = json.loads(child.stdout.readline())
    if "error" in answer:
        raise RuntimeError(f"{peer}: {answer['error']}")
    return answer["seconds"]


Turn = Callable[[], float]
"Does its tokens once more and gives the CPU seconds it took."


def floors(plans: dict[str, RecordingPlan], tokens: Tensor) -> dict[str, Turn]:
    """The bare forward, and that with the encoder's GEMM, its memory fresh or used again."""
    network = next(iter(plans.values())).model.network

    def gemm(plan: RecordingPlan, again: bool) -> Callable[[], None]:
        inner = plan.saes[0].sae
        weight, bias = inner.W_enc.detach(), inner.b_enc.detach()
        memory = torch.empty(BATCH * CONTEXT, weight.shape[1], dtype=weight.dtype) if again else None
        return lambda: bare_forward(network, tokens,
                                    lambda x: torch.addmm(bias, x.reshape(-1, 512), weight, out=memory))

    runs: dict[str, Callable[[], None]] = {"forward": lambda: bare_forward(network, tokens, lambda x: None)}
    for name, plan in plans.items():
        if plan.saes:
            runs[f"forward + GEMM {name}"] = gemm(plan, False)
            runs[f"forward + GEMM {name}, memory used again"] = gemm(plan, True)

    def timed(run: Callable[[], None]) -> Turn:
        def turn() -> float:
            began = time.process_time()
            run()
            return time.process_time() - began

        return turn

    return {name: timed(run) for name, run in runs.items()}


def recording(plan: RecordingPlan, out: Path) -> Turn:
    """A shard of one recording a turn, and after the last what ends it; statistics gathered beside are waited for."""
    steps = record(plan, out)

    def turn() -> float:
        began = time.process_time()
        next(steps, None)
        while True:
            before = time.process_time()
            time.sleep(0.05)
            if time.process_time() - before < 0.005:
                return before - began

    return turn


def time_inside(network: GPTNeoXForCausalLM) -> list[float]:
    """A list to which every forward of the network adds its CPU seconds."""
    inside: list[float] = []
    forward = type(network.gpt_neox).forward

    def timed(*inputs: Tensor, **options: Tensor) -> Tensor:
        began = time.process_time()
        try:
            return forward(network.gpt_neox, *inputs, **options)
        finally:
            inside.append(time.process_time() - began)

    network.gpt_neox.forward = timed
    return inside


def measured(
    made: Model, text: list[str], folder: Path, dtype: str, arguments: argparse.Namespace, said: dict[str, str]
) -> Iterator[dict[str, list[float]]]:
    """CPU seconds of every counted turn, after each those of all so far, and at last what ends the recordings."""
    loaded = Model(made.name, made.network.to(DTYPES[dtype]), made.tokenizer, made.device, dtype)
    asked = {"activations": dict(hook_names=(HOOK,), context_size=CONTEXT, prepend_bos=False)} | {
        f"latents {d_sae}": dict(saes=(str(folder / str(d_sae)),)) for d_sae in WIDTHS
    }
    turns = arguments.turns
    plans = {name: in_turns(plan_recording(RecordingConfig(dataset="random", batch_size=BATCH, dtype=dtype, **options),
                                           text, loaded), turns + 1)
             for name, options in asked.items() if name in arguments.recordings}
    first = torch.from_numpy(np.load(folder / "tokens.npy")).long()
    records = {f"record {name}": recording(plan, folder / dtype / name) for name, plan in plans.items()}
    with peers(folder, dtype, said) if arguments.peers else contextlib.nullcontext({}) as others:
        passes = floors(plans, first) | records | others
        inside = time_inside(loaded.network)
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for turn in range(turns + 1):
            for name, run in passes.items():
                inside.clear()
                took = run()
                if turn:
                    seconds[name].append(took)
                    if name == "record activations":
                        seconds.setdefault(INSIDE, []).append(sum(inside))
                print(f"{dtype} turn {turn} of {turns} {name}: {took:.2f} s", flush=True)
            if turn:
                yield seconds
        yield seconds | {f"{name}, its end": [run()] for name, run in records.items()}


def in_turns(plan: RecordingPlan, n: int) -> RecordingPlan:
    """The plan with so many equal shards."""
    manifest = dataclasses.replace(plan.manifest, contexts_per_shard=plan.manifest.n_contexts // n)
    return dataclasses.replace(plan, manifest=dataclasses.replace(manifest, key=layout.run_key(manifest)))


INSIDE = "the forward inside it"
COMPARISONS = {
    "activations": ("forward", INSIDE,
                    "sae_lens activations", "nnsight activations", "dictionary_learning activations"),
    **{f"latents {d}": ("forward", f"forward + GEMM latents {d}", f"forward + GEMM latents {d}, memory used again",
                        f"delphi latents {d}") for d in WIDTHS},
}
"What every recording is held against."


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict]:
    """Speed of our recording over that of each other: the other's seconds over ours, turn by turn."""
    out = {}
    for name, others in COMPARISONS.items():
        for other in others:
            if other in seconds and f"record {name}" in seconds:
                each = [a / b for a, b in zip(seconds[other], seconds[f"record {name}"], strict=True)]
                out[f"record {name} / {other}"] = {"median": round(float(np.median(each)), 3),
                                                   "each": [round(r, 3) for r in each]}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384, help="In a turn; a multiple of a batch's 2,048.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recordings", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("reports/caching_speed.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    said: dict[str, str] = {}
    result = {
        "command": shlex.join(["OMP_NUM_THREADS=1", "python", "benchmarks/caching/speed.py", *sys.argv[1:]]),
        "versions": {"torch": torch.__version__, "python": platform.python_version()}, "k": K, "peers": said,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder, made, text = Path(temporary), model(), documents(arguments.tokens * (arguments.turns + 1))
        for d_sae in WIDTHS:
            sae(folder / str(d_sae), d_sae)
        in_hub_cache(made, folder / "home")
        turn = text[: arguments.tokens // CONTEXT]
        np.save(folder / "tokens.npy", [[int(word[1:]) for word in document.split()] for document in turn])
        for dtype in DTYPES:
            for seconds in measured(made, text, folder, dtype, arguments, said):
                result[dtype] = ratios(seconds) | {"median cpu seconds (this machine only)": {
                    name: round(float(np.median(each)), 2) for name, each in seconds.items()}}
                arguments.out.parent.mkdir(exist_ok=True)
                arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
