// The map of decoder directions: shows which latents the table holds and which one is chosen; a click chooses.

function makeMap(core, table, onChoose) {
  const target = byId('map');
  const pane = byId('map-pane');
  const colours = { label: 'label', kind: 'kind', f1: 'F1' };
  const places = new Map();   // latent -> [x, y]
  let colour = 'label';
  let ready = false;

  const figureOf = () => core.figures[`map_${colour}`];
  const marker = () => ({ type: 'scattergl', mode: 'markers', x: [], y: [], hoverinfo: 'skip', showlegend: false,
    marker: { symbol: 'circle-open', size: 17, color: getComputedStyle(document.documentElement).getPropertyValue('--ink').trim(), line: { width: 2.5 } } });

  // Labels written into the map, as many as fit without touching; best F1 first.
  const names = () => ({ type: 'scatter', mode: 'text', x: [], y: [], text: [], hoverinfo: 'skip', showlegend: false, cliponaxis: true, textposition: 'top center', textfont: { size: 10.5 } });
  const points = () => target.data.slice(0, -2);
  let waiting = 0;
  const nameLater = () => { clearTimeout(waiting); waiting = setTimeout(name, 90); };

  async function name() {
    if (!ready || !target.isConnected) return;
    const { xaxis, yaxis } = target._fullLayout;
    const [width, height] = [xaxis._length, yaxis._length];
    const order = table.state.rows.filter((index) => !table.silent(index)).map((index) => [table.best(index), index]).sort((a, b) => b[0] - a[0]);
    const taken = [];
    for (const [, index] of order.slice(0, 4000)) {
      const place = places.get(core.latents[index]);
      if (!place) continue;
      const [x, y] = [xaxis.d2p(place[0]), yaxis.d2p(place[1])];
      const text = shorten(shownLabel(table.label(index)));
      const half = text.length * 3.1 + 4;
      if (x - half < 0 || x + half > width || y < 16 || y > height) continue;
      if (taken.some((other) => Math.abs(other.x - x) < other.half + half && Math.abs(other.y - y) < 15)) continue;
      taken.push({ x, y, half, place, text: text.replaceAll('&', '&amp;').replaceAll('<', '&lt;') });
      if (taken.length >= Math.max(12, width * height / 5500)) break;
    }
    await plotly.restyle(target, { x: [taken.map(({ place }) => place[0])], y: [taken.map(({ place }) => place[1])], text: [taken.map(({ text }) => text)] }, [target.data.length - 2]);
  }
  const shorten = (text) => (text.length > 18 ? `${text.slice(0, 17)}…` : text);

  async function show() {
    const figure = figureOf();
    if (!figure || !figure.data.length) { target.replaceChildren(element('p.nothing', {}, 'There is no map of these latents.')); return; }
    await draw(target, { data: [...figure.data, names(), marker()], layout: figure.layout }, { scrollZoom: true });
    if (!ready) {
      ready = true;
      target.on('plotly_relayout', nameLater);
      target.on('plotly_click', ({ points }) => { if (points[0]?.customdata !== undefined) onChoose(table.places.get(points[0].customdata)); });
    }
    if (!places.size) points().forEach((trace) => trace.customdata.forEach((latent, j) => places.set(latent, [at(trace.x, j), at(trace.y, j)])));
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
    const traces = points();
    const selected = traces.map((trace) => (kept ? trace.customdata.flatMap((latent, j) => (kept.has(latent) ? [j] : [])) : null));
    await plotly.restyle(target, { selectedpoints: selected }, traces.map((_, i) => i));
    await name();
  }

  byId('map-colours').replaceChildren(...Object.entries(colours).map(([key, title]) => element('button', { 'aria-pressed': String(key === colour), onclick: (event) => {
    colour = key;
    for (const button of byId('map-colours').children) button.setAttribute('aria-pressed', String(button === event.currentTarget));
    if (plotly) show();
  } }, title)));
  byId('map-size').addEventListener('click', () => {
    document.querySelector('.choose').classList.toggle('wide-map');
    if (plotly && ready) plotly.Plots.resize(target).then(name);
  });
  return { show, ring, fade, pane };
}
