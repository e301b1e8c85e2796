"""What the report shows of each latent: statistics, contexts, and its place on a map of decoder directions."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from activation_cache.shards import ActivationCache
from sae_translate.label.config import LabelConfig
from sae_translate.label.evidence import column


def decoder_map(directions: Float[np.ndarray, "live d"], seed: int, most: int = 5000) -> Float[np.ndarray, "live 2"]:
    """Two-dimensional map of decoder directions: t-SNE of cosine distances up to `most` latents, PCA beyond."""
    n = len(directions)
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.maximum(norms, 1e-12)
    if n < 3:
        return np.zeros((n, 2), dtype=np.float32)
    if n < 20 or n > most:
        return PCA(2, random_state=seed).fit_transform(unit)
    reduced = PCA(min(50, n, unit.shape[1]), random_state=seed).fit_transform(unit)
    perplexity = min(30.0, (n - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed).fit_transform(reduced)


def context_at(
    position: int, kind: str, segments, documents, tokens, surfaces, activation: dict[int, float], config: LabelConfig
) -> dict:
    """A window around a position, inside its context, with the latent's activation at every token of it."""
    segment = int(np.searchsorted(segments, position, side="right")) - 1
    start = max(int(segments[segment]), position - config.before)
    end = min(int(segments[segment + 1]), position + config.after + 1)
    return {
        "kind": kind,
        "document": int(documents[segment]),
        "position": position,
        "tokens": [surfaces[t] for t in tokens[start:end].tolist()],
        "values": [round(activation.get(i, 0.0), 4) for i in range(start, end)],
        "peak": position - start,
    }


def latents_table(
    cache: ActivationCache,
    name: str,
    latents: sparse.csr_array,
    live: Int[np.ndarray, "live"],
    surfaces: list[str],
    places: Float[np.ndarray, "live 2"],
    heaviest: tuple[Int[np.ndarray, "live"], Float[np.ndarray, "live"]],
    names: list[str],
    config: LabelConfig,
) -> pd.DataFrame:
    """One row a live latent: statistics, contexts and place on the map, for the report.

    latents: activations of the live latents at every cached position. heaviest: the token that holds most of each
    latent's activation (-1: it never fires), and its share.
    """
    statistics = cache.statistics(name)
    segments, documents, tokens = cache.context_offsets, cache.document_ids, cache.tokens
    columns = sparse.csc_array(latents)
    rows = []
    for i, latent in enumerate(live.tolist()):
        positions, values = column(columns, i)
        activation = dict(zip(positions.tolist(), values.tolist(), strict=True))
        wanted = [("top", p) for p in statistics.top_positions[latent][: config.n_top].tolist()]
        wanted += [
            (f"q{q}", p)
            for q, band in enumerate(statistics.quantile_positions[latent].tolist())
            for p in band[: config.n_quantile]
        ]
        token, share = int(heaviest[0][i]), float(heaviest[1][i])
        rows.append(
            {
                "latent": latent,
                "density": float(statistics.density[latent]),
                "mean": float(statistics.mean[latent]),
                "max": float(statistics.max[latent]),
                "histogram": statistics.histogram[latent].tolist(),
                "histogram_edges": np.asarray(statistics.histogram_edges, dtype=float).tolist(),
                "x": float(places[i, 0]),
                "y": float(places[i, 1]),
                "token": names[token] if token >= 0 else "",
                "token_precision": share if token >= 0 else float("nan"),
                "contexts": [
                    context_at(p, kind, segments, documents, tokens, surfaces, activation, config)
                    for kind, p in wanted
                    if p >= 0
                ],
            }
        )
    return pd.DataFrame(rows)
