"""Figures of a labels report: pure functions of tables that return Plotly figures.

Colours are mid-tones that read on light and dark paper; the page paints fonts, grid and background in its theme.
"""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from sae_translate.report.words import method_words, methods_in_order, visible

PALETTE = ("#5470e8", "#e07b39", "#14a08f", "#c94f7c", "#8f6fe0", "#d4a017", "#3d9be0", "#7a9e3a", "#b5634b", "#5f8f9b")
REST = "#9aa1ab"
HEAT = "#e38b4a"
"Activation is this colour everywhere in a report."
TICKS = [float(f"{digit}e{power}") for power in range(-4, 6) for digit in (1, 2, 5)]
COUNTS = {1: "1", 10: "10", 100: "100", 10**3: "1k", 10**4: "10k", 10**5: "100k", 10**6: "1M", 10**7: "10M"}
SCALE = [[0.0, "#b9c0c9"], [0.35, "#7fb2d9"], [0.7, "#5470e8"], [1.0, "#3a2f9e"]]


def histogram_figure(counts: Float[np.ndarray, "bins"], edges: Float[np.ndarray, "bins+1"]) -> go.Figure:
    """How often a latent is active at each strength, from the first bin that holds a position to the last.

    The count axis is logarithmic; so is the axis of activations where the bins grow with it.
    """
    growing = edges[0] > 0 and np.diff(edges)[-1] > 2 * np.diff(edges)[0]
    held = np.flatnonzero(counts)
    shown = edges[[held[0], held[-1] + 1]] if len(held) else edges[[0, -1]]
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    low, high = edges[:-1], edges[1:]
    bars = go.Bar(
        x=centres.tolist(),
        y=counts.tolist(),
        width=widths.tolist(),
        customdata=np.column_stack([low, high]).tolist(),
        marker={"color": HEAT, "line": {"width": 0}},
        hovertemplate="%{y:,} positions<br>activation %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
    )
    figure = _figure([bars], margin={"l": 46, "r": 8, "t": 6, "b": 34}, bargap=0)
    if growing:
        figure.update_xaxes(type="log", range=np.log10(shown).tolist())
        figure.update_xaxes(tickvals=TICKS, ticktext=[f"{tick:g}" for tick in TICKS])
    else:
        figure.update_xaxes(range=[min(0.0, float(edges[0])), float(shown[1])])
    figure.update_xaxes(title={"text": "activation"}, showgrid=False)
    figure.update_yaxes(title={"text": "positions"}, type="log", tickvals=[*COUNTS], ticktext=[*COUNTS.values()])
    return figure


def map_figure(points: pd.DataFrame, colour: str = "label", groups: int = 9) -> go.Figure:
    """Decoder directions in two dimensions, coloured by `label` or `kind` (the most frequent get a colour) or by `f1`.

    `points` has the columns latent, x, y, label, kind, f1 and abstained; each point carries its latent in `customdata`.
    """
    traces = _scored(points) if colour == "f1" else _grouped(points, colour, groups)
    figure = _figure(traces, margin={"l": 6, "r": 6, "t": 6, "b": 6}, dragmode="pan", hovermode="closest")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    legend = {"itemsizing": "constant", "x": 1.0, "xanchor": "left", "y": 1, "font": {"size": 11}, "tracegroupgap": 0}
    figure.update_layout(showlegend=colour != "f1", legend=legend)
    return figure


def methods_figure(methods: pd.DataFrame) -> go.Figure:
    """Mean F1 of every method with its confidence interval (columns method, f1, f1_low, f1_high), best on top."""
    shown = methods.sort_values("f1", na_position="first")
    traces = []
    for row in shown.to_dict("records"):
        words = method_words(row["method"])
        symbol = "circle-open" if words.role == "floor" else "circle"
        low, high = row.get("f1_low", np.nan), row.get("f1_high", np.nan)
        interval = np.isfinite(low) and np.isfinite(high)
        width = {"array": [high - row["f1"]], "arrayminus": [row["f1"] - low]} if interval else {"visible": False}
        traces.append(
            go.Scatter(
                x=[row["f1"]],
                y=[words.title],
                mode="markers",
                marker={"color": words.colour, "size": 9, "symbol": symbol},
                error_x={"type": "data", "symmetric": False, "color": words.colour, "thickness": 2, "width": 5} | width,
                hovertemplate=f"{html.escape(words.title)}: F1 %{{x:.3f}}"
                + (f" [{low:.3f}, {high:.3f}]" if interval else "")
                + "<extra></extra>",
            )
        )
    figure = _figure(traces, margin={"l": 104, "r": 16, "t": 6, "b": 36})
    top = np.nanmax([0.05, *shown["f1"].fillna(0), *shown.get("f1_high", shown["f1"]).fillna(0)])
    figure.update_xaxes(title={"text": "mean F1 on held-out documents"}, range=[0, min(1.02, top * 1.12)])
    figure.update_yaxes(showgrid=True, ticks="")
    return figure


def f1_curve_figure(table: pd.DataFrame) -> go.Figure:
    """Share of latents whose F1 reaches each level, one line a method; an abstention counts as F1 = 0."""
    levels = np.linspace(0, 1, 101)
    traces = []
    for method in methods_in_order(table["method"]):
        words, rows = method_words(method), table[table["method"] == method]
        f1 = rows["f1"].fillna(0).to_numpy(float) * ~rows["abstained"].to_numpy(bool)
        line = {"color": words.colour, "width": 2, "dash": "dot" if words.role == "floor" else "solid"}
        share = [round(float((f1 >= level).mean()), 4) for level in levels]
        traces.append(
            go.Scatter(
                x=levels.round(2).tolist(),
                y=share,
                mode="lines",
                name=html.escape(words.title),
                line=line,
                hovertemplate="%{y:.1%} of latents reach F1 %{x:.2f}",
            )
        )
    figure = _figure(traces, margin={"l": 52, "r": 16, "t": 44, "b": 36}, showlegend=True)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 10}})
    figure.update_xaxes(title={"text": "F1 at least"}, range=[0, 1])
    figure.update_yaxes(title={"text": "share of latents"}, range=[0, 1.02], tickformat=".0%")
    return figure


def null_figure(objective: float, null: tuple[float, ...], threshold: float | None) -> go.Figure:
    """The decipherment objective beside the objective reached on surrogates without structure, and the threshold."""
    height = (0.35 * ((np.arange(len(null)) * 0.618) % 1) + 0.4).round(3).tolist()
    traces = [
        go.Scatter(
            x=list(null),
            y=height,
            mode="markers",
            name="null: text backwards",
            marker={"color": REST, "size": 8, "opacity": 0.75},
            hovertemplate="surrogate: %{x:.4f}<extra></extra>",
        ),
        go.Scatter(
            x=[objective],
            y=[0.575],
            mode="markers",
            name="this text",
            marker={"color": PALETTE[0], "size": 13, "symbol": "diamond"},
            hovertemplate="objective: %{x:.4f}<extra></extra>",
        ),
    ]
    figure = _figure(traces, margin={"l": 16, "r": 16, "t": 26, "b": 36}, showlegend=True)
    if threshold is not None and np.isfinite(threshold):
        figure.add_vline(
            x=threshold,
            line={"color": PALETTE[1], "width": 1.5, "dash": "dash"},
            annotation={"text": "threshold", "font": {"size": 11}, "yref": "paper", "y": 1, "yanchor": "bottom"},
        )
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 0, "yanchor": "bottom"})
    figure.update_xaxes(title={"text": "information explained at unseen lags"}, showgrid=True)
    figure.update_yaxes(visible=False, range=[0, 1])
    return figure


def _figure(traces: list, **layout) -> go.Figure:
    shared = {"template": go.layout.Template(), "showlegend": False, "autosize": True, "font": {"size": 12}}
    figure = go.Figure(traces, layout=shared | layout)
    small = {"tickfont": {"size": 11}, "title": {"font": {"size": 11}, "standoff": 5}, "zeroline": False}
    return figure.update_xaxes(small).update_yaxes(small)


def _grouped(points: pd.DataFrame, column: str, groups: int) -> list[go.Scattergl]:
    named = points.loc[~points["abstained"] & (points[column] != ""), column]
    frequent = [str(name) for name in named.value_counts(sort=True).index[:groups]]
    rank = points[column].map({name: i for i, name in enumerate(frequent)})
    rest = points["abstained"] | rank.isna()
    traces = [_points(points[~points["abstained"] & rest], "other", REST, opacity=0.55, size=5)]
    traces += [
        _points(points[~rest & (rank == i)], _for_plotly(name), PALETTE[i % len(PALETTE)], opacity=0.9, size=7)
        for i, name in enumerate(frequent)
    ]
    traces.append(_points(points[points["abstained"]], "abstained", REST, opacity=0.6, size=5, symbol="circle-open"))
    return [trace for trace in traces if len(trace.x)]


def _scored(points: pd.DataFrame) -> list[go.Scattergl]:
    silent = points["abstained"] | points["f1"].isna()
    scored = _points(points[~silent], "scored", REST, opacity=0.9, size=6)
    bar = {"title": {"text": "F1", "font": {"size": 11}}, "thickness": 9, "len": 0.8, "outlinewidth": 0, "nticks": 6}
    scored.marker.update(color=points.loc[~silent, "f1"].round(3).tolist(), colorscale=SCALE, cmin=0, cmax=1)
    scored.marker.update(showscale=True, colorbar=bar | {"tickfont": {"size": 11}})
    traces = [_points(points[silent], "abstained", REST, opacity=0.6, size=5, symbol="circle-open"), scored]
    return [trace for trace in traces if len(trace.x)]


def _points(
    rows: pd.DataFrame, name: str, colour: str, opacity: float, size: int, symbol: str = "circle"
) -> go.Scattergl:
    text = [
        "abstained" if row.abstained else f"{_for_plotly(row.label)}, F1 {row.f1:.2f}" for row in rows.itertuples()
    ]
    return go.Scattergl(
        x=rows["x"].to_numpy(np.float32),
        y=rows["y"].to_numpy(np.float32),
        customdata=rows["latent"].tolist(),
        text=text,
        name=name,
        mode="markers",
        marker={"color": colour, "size": size, "opacity": opacity, "symbol": symbol},
        unselected={"marker": {"opacity": 0.07}},
        hovertemplate="%{text}<br>latent %{customdata}<extra></extra>",
    )


def _for_plotly(text: str) -> str:
    """Plotly reads a few tags in text, so that what came from data is escaped."""
    return html.escape(visible(str(text)), quote=False)
