// The chosen latent: its label and claim, the answers of every method, its histogram and its contexts.

let asked = 0;
const reading = { log: true, aligned: true };

async function showLatent(core, table, index) {
  const turn = ++asked;
  const detail = await detailOf(core, index);
  if (turn !== asked) return;
  const box = byId('latent');
  const parts = [headOf(core, table, index, detail), answersOf(core, index, detail), contextsOf(core, index, detail)];
  const kept = box.scrollTop;
  box.replaceChildren(...parts);
  box.scrollTop = kept;
  box.dataset.latent = core.latents[index];
  await drawHistogram(core, detail);
}

function headOf(core, table, index, detail) {
  const latent = core.latents[index];
  const method = core.chosen[index] === null ? null : core.methods[core.chosen[index]];
  const answer = method && core.answers[method.key];
  const silent = !answer || answer.abstained[index] !== false;
  const label = silent ? null : answer.label[index];
  const claim = silent ? '' : detail.answers[method.key]?.claim;
  const stat = (key, shown) => element('div.stat', { 'data-tip': core.numbers[key]?.note }, element('dt', {}, core.numbers[key]?.title || key), element('dd', {}, shown));
  const value = (key) => (answer ? score(answer[key][index]) : '–');
  const step = (by, tip, path) => element('button.icon.small', { 'aria-label': tip, 'data-tip': tip, onclick: () => table.move(by) }, icon(path));
  return element('header.about', {},
    element('div.who', {},
      element('p.over', {}, element('span', {}, `Latent ${latent}`), step(-1, 'Previous in the table (k)', 'M15 5l-7 7 7 7'), step(1, 'Next in the table (j)', 'M9 5l7 7-7 7')),
      element(label ? 'h1' : 'h1.silent', {}, label ? shownLabel(label) : method ? 'abstained' : 'no answer'),
      element('p.claim', {},
        method ? element('span.chip', { style: { '--hue': method.colour }, 'data-tip': method.note }, method.title) : null,
        label && answer.kind[index] ? element('span.chip.plain', {}, kindName(answer.kind[index])) : null,
        label ? claim : method ? 'The method gave no answer that it would stand for.' : 'No method was run on this latent.'),
      element('dl.stats', {},
        stat('f1', value('f1')), stat('precision', value('precision')), stat('recall', value('recall')),
        stat('balanced_accuracy', value('balanced_accuracy')), stat('confidence', value('confidence')), stat('density', percent(core.density[index])))),
    element('figure.histogram', {},
      element('figcaption', {}, element('span', { 'data-tip': 'How often the latent is active at each strength, over all recorded positions.' }, 'Activations'),
        element('span.quiet', {}, `mean ${number(core.mean[index])}, max ${number(core.max[index])}`),
        element('button.text', { id: 'log', 'aria-pressed': String(reading.log), 'data-tip': 'Logarithmic or linear count', onclick: () => {
          reading.log = !reading.log;
          byId('log').setAttribute('aria-pressed', String(reading.log));
          drawHistogram(core, detail);
        } }, 'log')),
      detail.histogram.length ? element('div.plot', { id: 'histogram' }) : element('p.nothing', {}, 'No histogram was recorded.')));
}

async function drawHistogram(core, { histogram, edges }) {
  const target = byId('histogram');
  if (!target || !histogram.length || edges.length !== histogram.length + 1) return;
  const template = core.figures.histogram;
  const middle = histogram.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  const bars = { ...template.data[0], x: middle, y: histogram, width: histogram.map((_, i) => edges[i + 1] - edges[i]),
    customdata: histogram.map((_, i) => [edges[i], edges[i + 1]]) };
  const layout = structuredClone(template.layout);
  const top = Math.max(...histogram, 1);
  layout.yaxis = reading.log ? { ...layout.yaxis, range: [-0.3, Math.max(1, Math.log10(top) * 1.06)] }
    : { ...layout.yaxis, type: 'linear', tickvals: undefined, ticktext: undefined, nticks: 4, tickformat: '~s', range: [0, top * 1.06] };
  const first = histogram.findIndex((count) => count > 0);
  const last = histogram.findLastIndex((count) => count > 0);
  const [low, high] = first < 0 ? [edges[0], edges[edges.length - 1]] : [edges[first], edges[last + 1]];
  layout.xaxis.range = layout.xaxis.type === 'log' ? [Math.log10(low), Math.log10(high)] : [Math.min(edges[0], 0), high];
  await draw(target, { data: [bars], layout });
}

// ---- answers beside each other

function answersOf(core, index, detail) {
  const answers = core.methods.filter((method) => method.role === 'answer');
  const floors = core.methods.filter((method) => method.role === 'floor');
  return element('section.answers', {},
    element('h2', {}, 'Answers'),
    element('div.cards', {}, answers.map((method) => cardOf(core, index, detail, method))),
    floors.length ? element('p.floors', {}, element('span', { 'data-tip': 'Baselines that a label has to beat.' }, 'Floors'), floors.map((method) => {
      const given = core.answers[method.key];
      return element('span', { 'data-tip': method.note }, `${method.title} `, element('b', {}, given.label[index] ? shownLabel(given.label[index]) : '–'),
        ` F1 ${score(given.f1[index])}`);
    })) : null);
}

function cardOf(core, index, detail, method) {
  const given = core.answers[method.key];
  const chosen = core.chosen[index] !== null && core.methods[core.chosen[index]].key === method.key;
  const there = given.abstained[index] !== null;
  const silent = given.abstained[index] === true;
  const { terms = [], claim = '' } = detail.answers[method.key] || {};
  const most = Math.max(...terms.map(([, weight]) => Math.abs(weight)), 1e-12);
  return element(chosen ? 'div.card.on' : 'div.card', { style: { '--hue': method.colour } },
    element('h3', {}, element('span', { 'data-tip': method.note }, method.title), there && !silent && given.kind[index] ? element('span.kind', {}, kindName(given.kind[index])) : null, chosen ? element('span.mark', { 'data-tip': 'The answer that the table shows' }, 'chosen') : null),
    element(silent || !there ? 'p.answer.silent' : 'p.answer', { 'data-tip': claim || null },
      !there ? 'not run' : silent ? 'abstains' : shownLabel(given.label[index])),
    element('p.scores', {}, [['f1', 'F1'], ['precision', 'prec.'], ['recall', 'recall'], ['confidence', 'conf.']].map(([key, title]) =>
      element('span', { 'data-tip': `${core.numbers[key].title}. ${core.numbers[key].note}` }, title, element('b', {}, score(given[key][index]))))),
    terms.length ? element('ol.terms', { 'aria-label': 'Best terms' }, terms.slice(0, 7).map(([term, weight]) =>
      element('li', { style: { '--level': Math.max(0, Math.abs(weight) / most) } }, element('span', {}, visible(term)), element('span.weight', {}, number(weight)))))
      : element('p.nothing', {}, 'no terms'));
}

// ---- contexts

function contextsOf(core, index, detail) {
  const groups = new Map();
  for (const context of detail.contexts) {
    if (!groups.has(context[0])) groups.set(context[0], []);
    groups.get(context[0]).push(context);
  }
  const scale = core.max[index] || Math.max(1e-12, ...detail.contexts.flatMap((context) => context[5].filter((_, i) => i % 2)));
  const mode = (aligned, title, tip) => element('button', { 'aria-pressed': String(reading.aligned === aligned), 'data-tip': tip, onclick: () => {
    reading.aligned = aligned;
    byId('contexts').replaceWith(contextsOf(core, index, detail));
  } }, title);
  const names = [...groups.keys()];
  return element(reading.aligned ? 'section.contexts.aligned' : 'section.contexts', { id: 'contexts' },
    element('div.caption', {}, element('h2', {}, 'Contexts'),
      element('span.key', { 'data-tip': 'Shade: activation relative to the largest of this latent' }, '0', element('span.ramp'), number(scale)),
      element('span.segments', { role: 'group', 'aria-label': 'Layout of contexts' }, mode(true, 'aligned', 'One line each, peaks in a column; click one to read it whole'), mode(false, 'whole', 'Every context in full'))),
    names.length ? names.map((name) => [element('h3', {}, groupName(name, names)), element('div.lines', {}, groups.get(name).map((context) => lineOf(core, context, scale)))])
      : element('p.nothing', {}, core.contexts_per_kind === 0 ? 'Contexts were left out to keep this file within its size.' : 'No context was recorded for this latent.'));
}

function groupName(name, names) {
  if (name === 'top') return 'Strongest';
  const level = /^q(\d+)$/.exec(name);
  if (!level) return kindName(name);
  const levels = names.filter((other) => /^q\d+$/.test(other)).map((other) => Number(other.slice(1)));
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const tail = Number(level[1]) === low ? ', weakest' : Number(level[1]) === high ? ', strongest' : '';
  return `Quantile ${Number(level[1]) + 1 - low} of ${high - low + 1}${tail}`;
}

function lineOf(core, [, doc, position, peak, tokens, active], scale) {
  const values = new Map();
  for (let i = 0; i < active.length; i += 2) values.set(active[i], active[i + 1]);
  const piece = (token, place) => {
    const text = core.strings[token];
    const value = values.get(place) || 0;
    const shown = visible(text);
    const space = /^ */.exec(shown)[0];
    return [space, element(place === peak ? 'span.t.peak' : value ? 'span.t.lit' : shown !== text ? 'span.t.white' : 'span.t',
      { style: value ? { '--level': Math.min(1, value / scale).toFixed(3) } : {}, 'data-tip': `“${visible(text)}”  ${number(value)}` }, shown.slice(space.length))];
  };
  const pieces = tokens.map(piece);
  const where = `document ${doc}, position ${position}, peak ${number(values.get(peak) ?? null)}`;
  const line = element('div.line', { tabindex: 0, 'aria-label': where },
    element('span.value', { 'data-tip': where }, number(values.get(peak) ?? null)),
    element('span.before', {}, element('span', {}, pieces.slice(0, peak))), element('span.rest', {}, pieces.slice(peak)));
  const open = () => line.classList.toggle('open');
  line.addEventListener('click', () => { if (!String(getSelection())) open(); });
  line.addEventListener('keydown', (event) => { if (event.key === 'Enter') open(); });
  return line;
}
