"""The one writer of self-contained HTML: page, styles, scripts, Plotly and data in a single file that opens offline."""

import base64
import hashlib
import html
import json
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from sae_translate.artifacts import plain, write_text
from sae_translate.label.labels import Labels
from sae_translate.report.payload import block_payloads, core_payload
from sae_translate.report.words import short_name

SCRIPTS = ("decode.js", "dom.js", "figures.js", "table.js", "latent.js", "map.js", "summary.js", "app.js")
BYTES_PER_THOUSAND = 10_000_000
"A report of n latents takes at most n / 1,000 of these, but at least one; Plotly is among them."
CONTEXTS_PER_KIND = (None, 20, 12, 8, 5, 3, 1, 0)
"How many contexts of a kind are kept; the first choice that fits is taken."


def write_report(labels: Labels, path: str | Path) -> tuple[Path, Path]:
    """Write the report of these labels to `path` (HTML), and its summary beside it (JSON); both paths are returned.

    Files appear whole or not at all; what stood there before is replaced. Raises UserError where there is no latent.
    """
    path = Path(path)
    page = render(labels.table, labels.latents, labels.summary)
    summary = json.dumps(plain(labels.summary), ensure_ascii=False, indent=2) + "\n"
    beside = path.with_suffix(".json")
    write_text(beside, summary)
    write_text(path, page)
    return path, beside


def render(table: pd.DataFrame, latents: pd.DataFrame, summary: dict[str, Any]) -> str:
    """The report as one HTML text, within its size budget: contexts are left out where they would exceed it."""
    budget = BYTES_PER_THOUSAND * max(1.0, len(latents) / 1000)
    core = core_payload(table, latents, summary)
    plotly = _packed(get_plotlyjs())
    for per_kind in CONTEXTS_PER_KIND:
        core["strings"], blocks = block_payloads(table, latents, per_kind)
        core["contexts_per_kind"] = per_kind
        data = {"core": _packed(_json(core))} | {f"block-{i}": _packed(_json(block)) for i, block in enumerate(blocks)}
        if sum(map(len, data.values())) + len(plotly) + 150_000 <= budget:
            break
    return _page(summary, data | {"plotly": plotly})


def _page(summary: dict[str, Any], data: dict[str, str]) -> str:
    script = "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();"
    fingerprint = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = " · ".join(short_name(str(summary[key])) for key in ("sae", "model") if summary.get(key)) or "labels"
    parts = {
        "title": html.escape(f"sae-translate: {title}"),
        "fingerprint": fingerprint,
        "style": _asset("style.css"),
        "data": "\n".join(
            f'<script type="application/octet-stream" id="data-{name}">{text}</script>' for name, text in data.items()
        ),
        "script": script,
    }
    page = _asset("page.html")
    for name, text in parts.items():
        page = page.replace(f"<!-- {name} -->", text, 1)
    return page


def _asset(name: str) -> str:
    return resources.files("sae_translate.report").joinpath("assets", name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()
