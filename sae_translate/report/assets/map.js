// The map of decoder directions: shows which latents the table holds and which one is chosen; a click chooses.

function makeMap(core, table, onChoose) {
  const target = byId('map');
  const pane = byId('map-pane');
  const names = { label: 'label', kind: 'kind', f1: 'F1' };
  const places = new Map();   // latent -> [x, y]
  let colour = 'label';
  let ready = false;

  const figureOf = () => core.figures[`map_${colour}`];
  const marker = () => ({ type: 'scattergl', mode: 'markers', x: [], y: [], hoverinfo: 'skip', showlegend: false,
    marker: { symbol: 'circle-open', size: 17, color: getComputedStyle(document.documentElement).getPropertyValue('--ink').trim(), line: { width: 2.5 } } });

  async function show() {
    const figure = figureOf();
    if (!figure || !figure.data.length) { target.replaceChildren(element('p.nothing', {}, 'There is no map of these latents.')); return; }
    await draw(target, { data: [...figure.data, marker()], layout: figure.layout }, { scrollZoom: true });
    if (!ready) {
      ready = true;
      target.on('plotly_click', ({ points }) => { if (points[0]?.customdata !== undefined) onChoose(table.places.get(points[0].customdata)); });
    }
    if (!places.size) target.data.slice(0, -1).forEach((trace, i) => target.calcdata[i] && trace.customdata.forEach((latent, j) => places.set(latent, [at(trace.x, j), at(trace.y, j)])));
    await fade();
    await ring();
  }
  const at = (values, j) => (values._inputArray || values)[j];

  async function ring() {
    if (!ready) return;
    const place = places.get(core.latents[table.state.chosen]);
    const last = target.data.length - 1;
    await plotly.restyle(target, { x: [place ? [place[0]] : []], y: [place ? [place[1]] : []],
      'marker.color': getComputedStyle(document.documentElement).getPropertyValue('--ink').trim() }, [last]);
  }

  async function fade() {
    if (!ready) return;
    const kept = table.state.filtered ? new Set(table.state.rows.map((index) => core.latents[index])) : null;
    const traces = target.data.slice(0, -1);
    const selected = traces.map((trace) => (kept ? trace.customdata.flatMap((latent, j) => (kept.has(latent) ? [j] : [])) : null));
    await plotly.restyle(target, { selectedpoints: selected }, traces.map((_, i) => i));
  }

  byId('map-colours').replaceChildren(...Object.entries(names).map(([key, title]) => element('button', { 'aria-pressed': String(key === colour), onclick: (event) => {
    colour = key;
    for (const button of byId('map-colours').children) button.setAttribute('aria-pressed', String(button === event.currentTarget));
    if (plotly) show();
  } }, title)));
  byId('map-size').addEventListener('click', () => {
    document.querySelector('.choose').classList.toggle('wide-map');
    if (plotly) plotly.Plots.resize(target);
  });
  return { show, ring, fade, pane };
}
