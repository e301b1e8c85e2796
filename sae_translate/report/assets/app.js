// The report: reads the core, wires table, latent, map and summary together, and follows the address (#latent=123).

async function start() {
  const root = document.documentElement;
  startTooltips();
  if (!('DecompressionStream' in window)) {
    byId('latent').replaceChildren(element('p.nothing', {}, 'This browser is too old for this report: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4 or newer).'));
    return;
  }
  const core = JSON.parse(await inflated('core'));
  Object.assign(kindNames, core.kinds);
  fillHeader(core);
  fillSummary(core);

  let map = null;
  const table = makeTable(core, choose);
  map = makeMap(core, table, choose);

  function choose(index) {
    if (index === undefined) return;
    table.choose(index);
    if (plotly) map.ring();
    const address = `#latent=${core.latents[index]}`;
    if (location.hash !== address) history.replaceState(null, '', address);
    return showLatent(core, table, index);
  }

  // ---- tools
  const option = (value, title) => element('option', { value }, title);
  byId('method').append(option('', 'best answer'), ...core.methods.map((method, i) => option(i, method.title)));
  const kinds = [...new Set(core.methods.flatMap((method) => core.answers[method.key].kind))].filter(Boolean).sort();
  byId('kind').append(option('', 'all kinds'), ...kinds.map((kind) => option(kind, kindName(kind))));
  for (const id of ['method', 'kind', 'answered']) byId(id).addEventListener('change', (event) => change({ [id]: event.target.value }));
  let typing = 0;
  byId('search').addEventListener('input', (event) => { clearTimeout(typing); typing = setTimeout(() => change({ query: event.target.value }), core.latents.length > 5000 ? 120 : 0); });
  byId('search').addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { event.target.value = ''; change({ query: '' }); byId('grid').focus(); }
    if (event.key === 'Enter' || event.key === 'ArrowDown') { event.preventDefault(); byId('grid').focus(); table.move(0); }
  });
  let fading = 0;
  function change(changes) {
    table.set(changes);
    clearTimeout(fading);
    fading = setTimeout(() => { if (plotly) map.fade(); }, 120);
  }

  // ---- keys, theme, views, address
  document.addEventListener('keydown', (event) => {
    if (event.target.closest('input, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '/') { event.preventDefault(); byId('search').focus(); byId('search').select(); }
    if (event.key === 'j') table.move(1);
    if (event.key === 'k') table.move(-1);
  });
  const remembered = { read() { try { return localStorage.getItem('sae-translate-theme'); } catch { return null; } },
    write(theme) { try { localStorage.setItem('sae-translate-theme', theme); } catch { /* a browser may refuse storage to files */ } } };
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const wear = (theme) => { root.dataset.theme = theme; if (plotly) { repaint(); map.ring(); } };
  dark.addEventListener('change', () => { if (!remembered.read()) wear(dark.matches ? 'dark' : 'light'); });
  byId('theme').addEventListener('click', () => { const theme = root.dataset.theme === 'dark' ? 'light' : 'dark'; remembered.write(theme); wear(theme); });
  wear(remembered.read() || (dark.matches ? 'dark' : 'light'));

  const views = ['latents', 'summary'];
  async function view(name) {
    for (const other of views) {
      byId(`tab-${other}`).setAttribute('aria-selected', String(other === name));
      byId(`view-${other}`).hidden = other !== name;
    }
    if (name === 'summary') await drawSummary(core);
  }
  for (const name of views) byId(`tab-${name}`).addEventListener('click', () => view(name));

  async function follow() {
    if (location.hash === '#summary') return view('summary');
    const wanted = /latent=(\d+)/.exec(location.hash);
    const index = wanted ? table.places.get(Number(wanted[1])) : undefined;
    await view('latents');
    await choose(index ?? table.state.rows[0] ?? 0);
  }
  addEventListener('hashchange', follow);

  table.refresh();
  await follow();
  root.dataset.ready = 'table';
  plotly = await loadPlotly();
  if (!plotly) { byId('map').replaceChildren(element('p.nothing', {}, 'Plotly could not start; figures are missing.')); return; }
  await map.show();
  if (table.state.chosen >= 0) await showLatent(core, table, table.state.chosen);
  if (!byId('view-summary').hidden) await drawSummary(core);
  root.dataset.ready = 'figures';
}

start();
