// Elements, numbers and tokens. Text from data only ever becomes text nodes and attributes, never markup.

const byId = (id) => document.getElementById(id);

// element('div.card.wide', {onclick}, child, 'text')
function element(shape, attributes = {}, ...children) {
  const [tag, ...classes] = shape.split('.');
  const made = document.createElement(tag || 'div');
  if (classes.length) made.className = classes.join(' ');
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name === 'style') for (const [key, v] of Object.entries(value)) made.style.setProperty(key, v);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function icon(path) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

const score = (value) => (value === null || value === undefined ? '–' : value.toFixed(2));
const percent = (value) => {
  if (value === null || value === undefined) return '–';
  const p = value * 100;
  return `${p >= 10 ? p.toFixed(0) : p >= 0.095 ? p.toFixed(1) : p >= 0.001 ? p.toPrecision(1) : p ? '<0.001' : '0'}%`;
};
const number = (value) => (value === null || value === undefined ? '–' : Number.isInteger(value) ? value.toLocaleString('en')
  : value.toLocaleString('en', { maximumSignificantDigits: 3 }));
const kindNames = {};
const kindName = (kind) => kindNames[kind] || kind.replaceAll('_', ' ');

// White space that would not be seen is spelt out.
function visible(token) {
  const shown = token.replaceAll('\r', '').replaceAll('\n', '↵').replaceAll('\t', '⇥');
  return shown.trim() || !shown.length ? shown : '␣'.repeat(shown.length);
}

// A label that is only punctuation would be lost alone: it stands in quotation marks.
const shownLabel = (label) => (/[\p{L}\p{N}]/u.test(label) || !label || label === '—' ? visible(label) : `“${visible(label)}”`);

// One tooltip for the whole page; anything with data-tip has it, at once and also on keyboard focus.
function startTooltips() {
  const tip = byId('tip');
  let shown = null;
  const show = (target) => {
    if (target === shown) return;
    shown = target;
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    const box = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.max(6, Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 6));
    const above = box.top - own.height - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 6, innerHeight - own.height - 4)}px`;
  };
  document.addEventListener('mouseover', (event) => show(event.target.closest?.('[data-tip]') || null));
  document.addEventListener('focusin', (event) => show(event.target.matches('button[data-tip]') && event.target.matches(':focus-visible') ? event.target : null));
  document.addEventListener('focusout', () => show(null));
  document.addEventListener('mousedown', () => show(null));
  document.addEventListener('scroll', () => show(null), true);
}
