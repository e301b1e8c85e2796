"""What the decipherment benchmark reads: documents, a model's activations, a TopK SAE of them, and languages."""

import csv
import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from sae_translate.languages.language import Corpus, Language

BENCH = Path(__file__).resolve().parents[2] / ".bench"


def documents_of(path: Path, column: int = 0) -> list[str]:
    """Documents of a JSON list, of a tab-separated table (one document per 8 rows), or of a bible (one per chapter)."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        if ".json" in path.suffixes:
            return json.load(file)
        if ".tsv" in path.suffixes:
            rows = [row[column] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
            rows = list(dict.fromkeys(rows))
            return [" ".join(rows[i : i + 8]) for i in range(0, len(rows), 8)]
        chapters: dict[str, list[str]] = {}
        book = ""
        for line in file:
            if line.startswith("###"):
                book = line.strip("# \n")
            elif verse := re.match(r"\[(\d+):\d+\]\s*(.*)", line):
                chapters.setdefault(f"{book} {verse[1]}", []).append(verse[2])
        return [" ".join(verses) for verses in chapters.values()]


def components_of(pairs: list[tuple[str, str]]) -> np.ndarray:
    """For every pair the number of its component: pairs of one share a text, straight or through others."""
    first, second = ({text: i for i, text in enumerate(dict.fromkeys(column))} for column in zip(*pairs, strict=True))
    rows, columns = [first[one] for one, _ in pairs], [len(first) + second[other] for _, other in pairs]
    n = len(first) + len(second)
    return connected_components(sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n)))[1][rows]


def _key(*parts) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


class Model:
    """A causal language model read at one layer, with everything it computes kept under `.bench/`."""

    def __init__(self, folder: Path, hook_name: str, context_size: int = 256):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder, self.hook_name, self.context_size = folder, hook_name, context_size
        self.name = folder.resolve().parent.name if folder.name == "model" else folder.name
        "What is kept of it goes by this name."
        self.layer = int(hook_name.split(".")[1])
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.model.base_model.layers = self.model.base_model.layers[: self.layer + 1]

    def tokens(self, documents: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, context offsets and the document of each context; no BOS among them."""
        path = BENCH / f"tokens-{_key(self.name, self.context_size, *documents)}.npz"
        if path.exists():
            kept = np.load(path)
            return kept["ids"], kept["offsets"], kept["owners"]
        ids, offsets, owners = [], [0], []
        for number, document in enumerate(documents):
            tokens = self.tokenizer(document, add_special_tokens=False)["input_ids"]
            for start in range(0, len(tokens), self.context_size - 1):
                piece = tokens[start : start + self.context_size - 1]
                if len(piece) >= 8:
                    ids.extend(piece)
                    offsets.append(len(ids))
                    owners.append(number)
        BENCH.mkdir(exist_ok=True)
        np.savez(path, ids=np.array(ids), offsets=np.array(offsets), owners=np.array(owners))
        return np.array(ids), np.array(offsets), np.array(owners)

    @torch.inference_mode()
    def activations(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The residual stream after the layer, one row per token; BOS is fed and dropped."""
        path = BENCH / f"activations-{_key(self.name, self.hook_name, tokens.tobytes())}.npy"
        if path.exists():
            return np.load(path)
        kept = []
        network = self.model.base_model
        hook = network.layers[self.layer].register_forward_hook(
            lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
        )
        out = np.empty((len(tokens), self.model.config.hidden_size), np.float32)
        bos = self.tokenizer.bos_token_id
        order = np.argsort(np.diff(offsets), kind="stable")
        for chunk in np.array_split(order, max(1, len(order) // 32)):
            width = int((offsets[chunk + 1] - offsets[chunk]).max())
            ids = np.full((len(chunk), width + 1), bos)
            for row, context in enumerate(chunk):
                piece = tokens[offsets[context] : offsets[context + 1]]
                ids[row, 1 : len(piece) + 1] = piece
            network(torch.from_numpy(ids))
            states = kept.pop().numpy()
            for row, context in enumerate(chunk):
                n = offsets[context + 1] - offsets[context]
                out[offsets[context] : offsets[context + 1]] = states[row, 1 : n + 1]
        hook.remove()
        BENCH.mkdir(exist_ok=True)
        np.save(path, out)
        return out


def train_topk(x: np.ndarray, d_sae: int, k: int, steps: int, seed: int, batch: int = 4096) -> dict[str, torch.Tensor]:
    """A TopK SAE with an auxiliary loss for dead latents (2406.04093), on centred activations of unit mean square."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(x)
    mean = x.mean(0)
    scale = (x - mean).pow(2).mean().sqrt()
    d = x.shape[1]
    decoder = torch.randn(d_sae, d, generator=generator)
    decoder = (decoder / decoder.norm(dim=1, keepdim=True)).requires_grad_()
    encoder = decoder.detach().T.clone().requires_grad_()
    bias = torch.zeros(d_sae, requires_grad=True)
    optimiser = torch.optim.Adam([encoder, decoder, bias], lr=2e-3, betas=(0.9, 0.999))
    idle = torch.zeros(d_sae)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (steps - step) / (0.3 * steps))
        rows = torch.randint(len(x), (batch,), generator=generator)
        y = (x[rows] - mean) / scale
        before = y @ encoder + bias
        value, index = before.relu().topk(k, dim=1)
        z = torch.zeros_like(before).scatter(1, index, value)
        error = y - z @ decoder
        loss = error.pow(2).mean()
        idle += 1
        idle[index[value > 0].unique()] = 0
        dead = idle > 100
        if dead.any():
            among = before.masked_fill(~dead, -torch.inf)
            dead_value, dead_index = among.topk(min(32, int(dead.sum())), dim=1)
            aux = torch.zeros_like(before).scatter(1, dead_index, dead_value.relu())
            loss = loss + (error.detach() - aux @ decoder).pow(2).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    return {"encoder": encoder.detach(), "bias": bias.detach(), "mean": mean, "scale": scale, "k": torch.tensor(k),
            "error": error.pow(2).mean().detach()}  # fmt: skip


@torch.inference_mode()
def encode(sae: dict[str, torch.Tensor], x: np.ndarray, block: int = 20_000) -> sparse.csr_array:
    """Sparse latents, positions x latents."""
    k, n = int(sae["k"]), len(x)
    values, indices = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    for start in range(0, n, block):
        y = (torch.from_numpy(x[start : start + block]) - sae["mean"]) / sae["scale"]
        value, index = (y @ sae["encoder"] + sae["bias"]).relu().topk(k, dim=1)
        values[start : start + block], indices[start : start + block] = value.numpy(), index.numpy()
    matrix = sparse.csr_array(
        (values.ravel(), indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, sae["encoder"].shape[1])
    )
    matrix.eliminate_zeros()
    return matrix


def sae_of(model: Model, x: np.ndarray, d_sae: int, k: int, steps: int, seed: int) -> dict[str, torch.Tensor]:
    """The SAE of these activations, trained once and kept."""
    path = BENCH / f"sae-{_key(model.name, model.hook_name, x.shape, d_sae, k, steps, seed)}.pt"
    if not path.exists():
        BENCH.mkdir(exist_ok=True)
        torch.save(train_topk(x, d_sae, k, steps, seed), path)
    return torch.load(path)


def token_language(name: str, tokens: np.ndarray, offsets: np.ndarray, owners: np.ndarray, items: tuple) -> Language:
    """Text as a language over the model's own tokens."""
    n = len(tokens)
    matrix = sparse.csr_array((np.ones(n, np.float32), tokens.astype(np.int32), np.arange(n + 1)), (n, len(items)))
    return Language(name, items, Corpus(matrix, offsets, owners))


def word_language(name: str, documents: list[str], size: int) -> Language:
    """Text as a language over its most frequent words and punctuation; a rarer word leaves its position empty."""
    split = [re.findall(r"\w+|[^\w\s]", document.lower()) for document in documents]
    words, inverse = np.unique(np.array([w for document in split for w in document]), return_inverse=True)
    keep = np.argsort(-np.bincount(inverse), kind="stable")[:size]
    column = np.full(len(words), -1)
    column[keep] = np.arange(len(keep))
    column = column[inverse]
    matrix = sparse.csr_array(
        (np.ones((column >= 0).sum(), np.float32), column[column >= 0],
         np.concatenate([[0], np.cumsum(column >= 0)])), (len(column), len(keep)),
    )  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in split])])
    return Language(name, tuple(words[keep].tolist()), Corpus(matrix, offsets, np.arange(len(split))))
