// The summary: verdict, methods with their baselines, what the numbers mean, how the labels were made.

const standing = (decipherment) => (typeof decipherment?.believed !== 'boolean' ? 'none' : decipherment.believed ? 'good' : 'poor');

function fillHeader(core) {
  const { summary } = core;
  const part = (title, key) => (summary[key] ? element('span', { 'data-tip': `${title}: ${summary[key]}` }, core.short[key] || String(summary[key])) : null);
  byId('subject').replaceChildren(...[part('Model', 'model'), part('SAE', 'sae'), part('Where it reads', 'hook_name'), part('Text of the unpaired side', 'text')].filter(Boolean));
  const { decipherment } = summary;
  const verdict = byId('verdict');
  verdict.hidden = !decipherment;
  verdict.className = `verdict ${standing(decipherment)}`;
  verdict.textContent = { good: 'decipherment holds', poor: 'decipherment abstains', none: 'no null was run' }[standing(decipherment)];
  verdict.dataset.tip = core.verdict;
}

function fillSummary(core) {
  const { summary } = core;
  const decipherment = summary.decipherment || {};
  const plot = (name, title, note) => (core.figures[name] ? element('figure', {}, element('figcaption', {}, title), element('div.plot', { 'data-figure': name }), element('p.quiet', {}, note)) : null);
  byId('view-summary').replaceChildren(element('div.page', {},
    element('h1', {}, 'What was read, and how well'),
    element(`p.lead.${standing(decipherment)}`, {}, core.verdict),
    methodsTable(core),
    Object.entries(summary.left_out || {}).map(([method, why]) => element('p.quiet.left-out', {}, `${titleOf(core, method)} was left out: ${why}`)),
    element('div.figures', {},
      plot('methods', 'F1 by method', 'Mean over latents on held-out documents, with its 95 % interval. Open circles are floors.'),
      plot('f1_curve', 'How many latents reach an F1', 'Share of latents whose label reaches at least this F1; an abstention counts as 0.'),
      plot('null', 'Decipherment against its null', nullNote(decipherment))),
    element('div.columns', {}, element('section', {}, element('h2', {}, 'What the numbers mean'), meanings(core)),
      element('section', {}, element('h2', {}, 'How it was made'), making(summary)))));
}

const titleOf = (core, key) => core.methods.find((method) => method.key === key)?.title || kindName(key);

function nullNote(decipherment) {
  const known = decipherment.null?.length;
  return `What was learnt at some lags, judged at lags never seen, on this text and on ${known === 1 ? 'a surrogate that shares' : `${known || 'no'} surrogates that share`} its counts but not its order. `
    + 'Where it does not pass the threshold, the unpaired method abstains.';
}

function methodsTable(core) {
  const place = (row) => core.methods.findIndex((method) => method.key === row.method);
  const rows = [...(core.summary.methods || [])].sort((a, b) => place(a) - place(b));
  if (!rows.length) return null;
  const methodOf = (key) => core.methods.find((method) => method.key === key) || { title: kindName(key), colour: 'gray', note: '', role: 'answer' };
  const interval = (row) => (row.f1_low !== null && row.f1_low !== undefined && row.f1_high !== null ? ` ${score(row.f1_low)}–${score(row.f1_high)}` : '');
  const extra = [['p_at_1', 'P@1', 'Over latents whose heaviest token holds more than half of their activation: the share whose first term is that token'],
    ['label_mass', 'Mass', 'Mean share of a latent’s activation that falls on its first term, over all live latents']].filter(([key]) => rows.some((row) => Number.isFinite(row[key])));
  const heads = [['Method', ''], ['Latents', 'Latents that the method was run on'], ['Coverage', 'Share of latents that it answers'], ['Precision', core.numbers.precision.note],
    ['Recall', core.numbers.recall.note], ['F1', `${core.numbers.f1.note} Mean over the labels that the method stands by.`], ['95 % interval', 'Bootstrap over latents'], ['Balanced acc.', core.numbers.balanced_accuracy.note], ...extra.map(([, name, tip]) => [name, tip]), ['Chosen', 'Latents whose answer is this method’s']];
  const last = (value) => (typeof value === 'boolean' ? (value ? 'yes' : '') : number(value ?? null));
  return element('table', {}, element('thead', {}, element('tr', {}, heads.map(([name, tip]) => element('th', { scope: 'col', 'data-tip': tip || null }, name)))),
    element('tbody', {}, rows.map((row) => {
      const method = methodOf(row.method);
      return element(method.role === 'floor' ? 'tr.floor' : 'tr', {},
        element('th', { scope: 'row', 'data-tip': method.note || null }, element('span.dot', { style: { '--hue': method.colour } }), method.title),
        [number(row.n), percent(row.coverage), score(row.precision), score(row.recall)].map((text) => element('td', {}, text)),
        element('td', {}, element('b', {}, score(row.f1))), element('td.quiet', {}, interval(row)),
        element('td', {}, score(row.balanced_accuracy)), extra.map(([key]) => element('td', {}, score(row[key]))), element('td', {}, last(row.chosen)));
    })));
}

function meanings(core) {
  return element('dl.meanings', {}, Object.values(core.numbers).flatMap(({ title, note }) => [element('dt', {}, title), element('dd', {}, note)]),
    core.methods.flatMap((method) => [element('dt', {}, element('span.dot', { style: { '--hue': method.colour } }), method.title), element('dd', {}, method.note || '–')]));
}

function making(summary) {
  const shown = { model: 'Model', sae: 'SAE', hook_name: 'Hook', dataset: 'Dataset', text: 'Text', n_live: 'Live latents', text_unit: 'Labels are made of', seed: 'Seed', version: 'sae-translate', created: 'Made' };
  const facts = Object.entries(shown).filter(([key]) => summary[key] !== undefined && summary[key] !== null && summary[key] !== '');
  const tokens = Object.entries(summary.tokens || {});
  const objective = summary.decipherment || {};
  const more = [['objective', 'Objective'], ['threshold', 'Threshold'], ['vocabulary', 'Vocabulary deciphered'], ['seconds', 'Seconds to decipher'], ['cpu_seconds', 'CPU seconds to decipher']].filter(([key]) => Number.isFinite(objective[key]));
  const used = { latents: 'Tokens, latents', text: 'Tokens, text', score: 'Tokens, scoring' };
  return element('div', {},
    element('dl.meanings', {}, facts.flatMap(([key, title]) => [element('dt', {}, title), element('dd', {}, typeof summary[key] === 'number' && key !== 'seed' ? number(summary[key]) : String(summary[key]))]),
      tokens.flatMap(([key, value]) => [element('dt', {}, used[key] || `Tokens, ${key}`), element('dd', {}, number(value))]),
      more.flatMap(([key, title]) => [element('dt', {}, title), element('dd', {}, number(objective[key]))])),
    summary.command ? element('pre', {}, String(summary.command)) : null);
}

async function drawSummary(core) {
  for (const target of document.querySelectorAll('[data-figure]')) await draw(target, core.figures[target.dataset.figure]);
}
