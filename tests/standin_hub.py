"""A hub on loopback: it serves tiny random repositories under their true names, and nothing else.

It speaks as much of the hub's HTTP as huggingface_hub, transformers, datasets and SAELens use to read: repository
information, file trees, and files with ETag, commit and byte ranges.
"""

import hashlib
import io
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet
import tiny
import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

COMMIT = "5" * 40
Repositories = dict[tuple[str, str], dict[str, bytes]]
"(models or datasets, owner/name) -> path -> content"


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: ClassVar[Repositories] = {}

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer(posted=self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def answer(self, body: bool = True, posted: str = ""):
        url = urlsplit(self.path)
        path = unquote(url.path)
        if called := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?",
                                  path):
            kind, name, what, _, inner = called.groups()
            files = self.repositories.get((kind, name))
            if files is None:
                return self.refuse("RepoNotFound", body)
            if what == "tree":
                recursive = parse_qs(url.query).get("recursive", [""])[0].lower() == "true"
                return self.send_json(tree(files, inner, recursive))
            if what == "paths-info":
                asked = parse_qs(posted).get("paths") or json.loads(posted or "{}").get("paths", [])
                return self.send_json(entries(files, asked))
            return self.send_json(information(kind, name, files))
        if called := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, _, inner = called.groups()
            files = self.repositories.get(("datasets" if kind else "models", name))
            if files is None:
                return self.refuse("RepoNotFound", body)
            if inner not in files:
                return self.refuse("EntryNotFound", body)
            return self.send_file(files[inner], body)
        return self.refuse("RepoNotFound", body)

    def refuse(self, code: str, body: bool):
        self.send("application/json", json.dumps({"error": code}).encode(), body, 404,
                  {"X-Error-Code": code, "X-Error-Message": code})

    def send_json(self, content):
        self.send("application/json", json.dumps(content).encode(), True, 200, {"X-Repo-Commit": COMMIT})

    def send_file(self, content: bytes, body: bool):
        headers = {"ETag": f'"{oid(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.send("application/octet-stream", content, body, 200, headers)
        start = int(asked[1])
        end = min(int(asked[2]) if asked[2] else len(content) - 1, len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send("application/octet-stream", content[start : end + 1], body, 206, headers)

    def send(self, kind: str, content: bytes, body: bool, status: int, headers: dict[str, str]):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def entries(files: dict[str, bytes], asked: list[str]) -> list[dict]:
    """What the hub says of these paths: files, and folders that hold some."""
    out = []
    for path in asked:
        if path in files:
            out.append({"type": "file", "path": path, "size": len(files[path]), "oid": oid(files[path])})
        elif any(file.startswith(f"{path.rstrip('/')}/") for file in files):
            out.append({"type": "directory", "path": path.rstrip("/"), "size": 0, "oid": "0" * 40})
    return out


def tree(files: dict[str, bytes], inner: str, recursive: bool) -> list[dict]:
    prefix = f"{inner.rstrip('/')}/" if inner else ""
    below = [path for path in files if path.startswith(prefix)]
    folders = {"/".join(path.split("/")[:depth]) for path in below for depth in range(1, path.count("/") + 1)}
    all_paths = sorted({*below, *(f for f in folders if f.startswith(prefix))})
    return entries(files, [path for path in all_paths if recursive or "/" not in path.removeprefix(prefix)])


def information(kind: str, name: str, files: dict[str, bytes]) -> dict:
    siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
    return {"_id": "5" * 24, "id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False,
            "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
            "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z"}


@contextmanager
def serve(repositories: Repositories):
    """The hub's address, as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"repositories": repositories}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def byte_level_tokenizer(documents: list[str], size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE such as Pythia's, whose one special token is number 0."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end, unk_token=end)


def model_files(tokenizer: PreTrainedTokenizerFast, width: int = 64) -> dict[str, bytes]:
    """A random model of Pythia-70m's architecture and depth, thinner."""
    network = tiny.neox(vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=6, num_attention_heads=8,
                        intermediate_size=4 * width, max_position_embeddings=2048)
    with TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def dataset_files(documents: list[str]) -> dict[str, bytes]:
    """One parquet file laid out as in NeelNanda/pile-10k."""
    buffer = io.BytesIO()
    meta = [{"pile_set_name": "stand-in"}] * len(documents)
    pyarrow.parquet.write_table(pa.table({"text": documents, "meta": meta}), buffer)
    return {"data/train-00000-of-00001.parquet": buffer.getvalue(), "README.md": b"---\nlicense: mit\n---\n"}


def sae_files(layer: int, width: int = 64, d_sae: int = 256) -> dict[str, bytes]:
    """An SAE as SAELens wrote them before its version 6, which is how the release is stored."""
    sae = tiny.sae("standard", d_in=width, d_sae=d_sae, seed=layer)
    config = {
        "model_name": "pythia-70m-deduped", "hook_point": f"blocks.{layer}.hook_resid_post", "hook_point_layer": layer,
        "hook_point_head_index": None, "dataset_path": "EleutherAI/the_pile_deduplicated", "context_size": 128,
        "d_in": width, "d_sae": d_sae, "dtype": "torch.float32", "device": "cpu", "prepend_bos": True,
        "activation_fn_str": "relu", "apply_b_dec_to_input": True, "normalize_activations": "none",
    }
    return {"cfg.json": json.dumps(config).encode(), "sae_weights.safetensors": save(sae.state_dict()),
            "sparsity.safetensors": save({"sparsity": torch.zeros(d_sae)})}


def repositories(documents: list[str]) -> Repositories:
    """Pythia-70m and its deduplicated sister, the default dataset, and the release pythia-70m-deduped-res-sm."""
    model = model_files(byte_level_tokenizer(documents))
    saes = {f"{layer}-res-sm/{name}": content for layer in range(6) for name, content in sae_files(layer).items()}
    return {
        ("models", "EleutherAI/pythia-70m"): model,
        ("models", "EleutherAI/pythia-70m-deduped"): model,
        ("models", "ctigges/pythia-70m-deduped__res-sm_processed"): saes,
        ("datasets", "NeelNanda/pile-10k"): dataset_files(documents),
    }
