// The table of latents: filtered, sorted, and drawn only where it is looked at.

const ROW = 27;   // pixels; the style sheet says the same
const COLUMNS = [
  { key: 'latent', title: 'Latent', tip: 'Number of the latent in its SAE' },
  { key: 'label', title: 'Label', text: true, tip: 'What the latent is said to fire on' },
  { key: 'kind', title: 'Kind', text: true, tip: 'What the label looks at: the token itself, the one before it, …' },
  { key: 'method', title: 'Method', text: true, tip: 'The method whose answer is shown' },
  { key: 'f1', title: 'F1' },
  { key: 'precision', title: 'Prec.' },
  { key: 'recall', title: 'Recall' },
  { key: 'balanced_accuracy', title: 'Bal.' },
  { key: 'confidence', title: 'Conf.' },
  { key: 'density', title: 'Density' },
];
const NUMERIC = ['latent', 'f1', 'precision', 'recall', 'balanced_accuracy', 'confidence', 'density', 'mean', 'max'];

function makeTable(core, onChoose) {
  const count = core.latents.length;
  const state = { query: '', method: '', kind: '', answered: '', sort: 'f1', descending: true, chosen: -1, rows: [], hints: new Map() };
  const places = new Map(core.latents.map((latent, index) => [latent, index]));
  const haystacks = core.search.map((terms) => terms.map((term) => term.toLowerCase()));

  const methodAt = (index) => (state.method === '' ? core.chosen[index] : Number(state.method));
  function cell(index, key) {
    if (key === 'latent') return core.latents[index];
    if (key === 'density' || key === 'mean' || key === 'max') return core[key][index];
    const method = methodAt(index);
    if (method === null) return key === 'label' || key === 'kind' || key === 'method' ? '' : null;
    if (key === 'method') return core.methods[method].title;
    const answers = core.answers[core.methods[method].key];
    if (key === 'label') return answers.abstained[index] ? '' : answers.label[index];
    return answers.abstained[index] && key !== 'confidence' && key !== 'kind' ? null : answers[key][index];
  }
  const abstains = (index) => {
    const method = methodAt(index);
    return method === null || core.answers[core.methods[method].key].abstained[index] !== false;
  };

  // ---- search: words, numbers, and conditions such as f1>0.5 or label:cat
  function conditionOf(word) {
    const compared = word.match(/^([a-z_0-9]+)(<=|>=|<|>|=)(-?[\d.]+%?)$/i);
    if (compared) {
      const key = NUMERIC.find((name) => name.startsWith(compared[1].toLowerCase()));
      const bound = compared[3].endsWith('%') ? parseFloat(compared[3]) / 100 : parseFloat(compared[3]);
      if (key && !Number.isNaN(bound)) {
        const holds = { '<': (a) => a < bound, '>': (a) => a > bound, '<=': (a) => a <= bound, '>=': (a) => a >= bound, '=': (a) => a === bound }[compared[2]];
        return (index) => { const value = cell(index, key); return value !== null && holds(value); };
      }
    }
    const field = word.match(/^(label|kind|method):(.+)$/i);
    if (field) {
      const wanted = field[2].toLowerCase();
      return (index) => cell(index, field[1].toLowerCase()).toLowerCase().includes(wanted);
    }
    if (/^#?\d+$/.test(word)) {
      const digits = word.replace('#', '');
      return (index) => String(core.latents[index]) === digits || (!word.startsWith('#') && haystacks[index].includes(word));
    }
    const wanted = word.toLowerCase();
    return (index) => {
      if (cell(index, 'label').toLowerCase().includes(wanted)) return true;
      const place = haystacks[index].findIndex((term) => term.includes(wanted));
      if (place >= 0) state.hints.set(index, core.search[index][place]);
      return place >= 0;
    };
  }

  function refresh() {
    state.hints.clear();
    const words = [...state.query.matchAll(/"([^"]+)"|(\S+)/g)].map((match) => match[1] ?? match[2]);
    const conditions = words.map(conditionOf);
    if (state.kind !== '') conditions.push((index) => cell(index, 'kind') === state.kind && !abstains(index));
    if (state.answered !== '') conditions.push((index) => abstains(index) === (state.answered === 'abstained'));
    const rows = [];
    for (let index = 0; index < count; index++) if (conditions.every((holds) => holds(index))) rows.push(index);
    state.rows = sorted(rows);
    state.filtered = conditions.length > 0;
    byId('count').textContent = rows.length === count ? `${count.toLocaleString('en')} latents` : `${rows.length.toLocaleString('en')} of ${count.toLocaleString('en')}`;
    byId('nothing').hidden = rows.length > 0;
    byId('spacer').style.height = `${rows.length * ROW}px`;
    byId('grid').setAttribute('aria-rowcount', rows.length + 1);
    drawHead();
    drawRows();
  }

  // Latents found by a term alone stand after those found by label; what has no value stands last, whichever the
  // direction; ties keep the order of the latents.
  function sorted(rows) {
    const { text } = COLUMNS.find((column) => column.key === state.sort);
    const values = new Map(rows.map((index) => [index, cell(index, state.sort)]));
    const collator = new Intl.Collator('en', { sensitivity: 'base' });
    const empty = (value) => value === null || value === '';
    const sign = state.descending ? -1 : 1;
    return rows.sort((a, b) => {
      const aside = state.hints.has(a) - state.hints.has(b);
      if (aside) return aside;
      const [x, y] = [values.get(a), values.get(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y) || a - b;
      return sign * (text ? collator.compare(x, y) : x - y) || a - b;
    });
  }

  // ---- drawing
  const head = byId('head');
  const scroller = byId('scroller');
  const rowsBox = byId('rows');

  function drawHead() {
    head.replaceChildren(...COLUMNS.map((column) => {
      const on = column.key === state.sort;
      const tip = core.numbers[column.key] ? `${core.numbers[column.key].title}. ${core.numbers[column.key].note}` : column.tip;
      return element(`button.cell.${column.key}`, { role: 'columnheader', 'data-key': column.key, 'data-tip': tip, tabindex: -1,
        'aria-sort': on ? (state.descending ? 'descending' : 'ascending') : 'none', onclick: () => sortBy(column.key) }, column.title);
    }));
  }

  function drawRow(position) {
    const index = state.rows[position];
    const method = methodAt(index);
    const silent = abstains(index);
    const label = cell(index, 'label');
    const f1 = cell(index, 'f1');
    const hint = state.hints.get(index);
    const on = index === state.chosen;
    const number = (key, shown) => element(`div.cell.${key}`, { role: 'gridcell' }, shown);
    return element(`div.row${on ? '.on' : ''}${hint ? '.aside' : ''}`, { role: 'row', id: `row-${core.latents[index]}`, 'data-index': index,
      'aria-rowindex': position + 2, 'aria-selected': on ? 'true' : 'false', style: { transform: `translateY(${position * ROW}px)` } },
      number('latent', String(core.latents[index])),
      element('div.cell.label', { role: 'gridcell' }, label ? element('b', {}, shownLabel(label)) : element('i', {}, method === null ? 'no answer' : 'abstained'),
        hint ? element('span.hint', {}, visible(hint)) : null),
      number('kind', silent ? '' : kindName(cell(index, 'kind'))),
      element('div.cell.method', { role: 'gridcell' }, method === null ? '' : element('span.dot', { style: { '--hue': core.methods[method].colour } }), cell(index, 'method')),
      element('div.cell.f1', { role: 'gridcell', style: { '--level': f1 ?? 0 } }, element('span', {}, score(f1))),
      number('precision', score(cell(index, 'precision'))), number('recall', score(cell(index, 'recall'))),
      number('balanced_accuracy', score(cell(index, 'balanced_accuracy'))), number('confidence', score(cell(index, 'confidence'))),
      number('density', percent(core.density[index])));
  }

  function drawRows() {
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 6);
    const last = Math.min(state.rows.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 6);
    const made = [];
    for (let position = first; position < last; position++) made.push(drawRow(position));
    rowsBox.replaceChildren(...made);
    const on = state.rows.indexOf(state.chosen);
    const grid = byId('grid');
    if (on >= first && on < last) grid.setAttribute('aria-activedescendant', `row-${core.latents[state.chosen]}`);
    else grid.removeAttribute('aria-activedescendant');
  }

  // A step past the edge scrolls by that row; a leap puts the row into the middle.
  function show(index) {
    const position = state.rows.indexOf(index);
    if (position < 0) return;
    const top = position * ROW;
    if (top < scroller.scrollTop - ROW || top > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top - (scroller.clientHeight - ROW) / 2;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW - scroller.clientHeight;
  }

  function sortBy(key) {
    const { text } = COLUMNS.find((column) => column.key === key);
    state.descending = state.sort === key ? !state.descending : !text && key !== 'latent';
    state.sort = key;
    scroller.scrollTop = 0;
    refresh();
  }

  function move(by) {
    if (!state.rows.length) return;
    const now = state.rows.indexOf(state.chosen);
    const next = now < 0 ? 0 : Math.max(0, Math.min(state.rows.length - 1, now + by));
    onChoose(state.rows[next]);
  }

  function choose(index) {
    state.chosen = index;
    show(index);
    drawRows();
  }

  let pending = 0;
  scroller.addEventListener('scroll', () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(drawRows); });
  new ResizeObserver(drawRows).observe(scroller);
  rowsBox.addEventListener('click', (event) => {
    const row = event.target.closest('.row');
    if (row) onChoose(Number(row.dataset.index));
  });
  byId('grid').addEventListener('keydown', (event) => {
    const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -count, End: count }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(by);
  });

  // The answer that the user gets, whatever the table shows.
  const bestOf = (index) => (core.chosen[index] === null ? null : core.answers[core.methods[core.chosen[index]].key]);
  const silent = (index) => { const answers = bestOf(index); return !answers || answers.abstained[index] !== false; };

  return { state, places, silent, best: (index) => bestOf(index).f1[index] ?? 0, label: (index) => bestOf(index).label[index], refresh, choose, move, cell, abstains, sortBy,
    set(changes) { Object.assign(state, changes); scroller.scrollTop = 0; refresh(); } };
}
