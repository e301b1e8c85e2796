// Plotly figures made in Python, painted in the theme of the page.

const drawn = new Map();   // element -> layout as it came from Python
let plotly = null;
let webgl = null;

function hasWebgl() {
  if (webgl === null) {
    try {
      const canvas = document.createElement('canvas');
      webgl = Boolean(canvas.getContext('webgl', { failIfMajorPerformanceCaveat: false }));
    } catch { webgl = false; }
  }
  return webgl;
}

// Colours and fonts of the theme as paths into a layout.
function themeOf(layout) {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const flat = { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    'font.family': colour('--sans'), 'font.color': colour('--muted'),
    'hoverlabel.bgcolor': colour('--raised'), 'hoverlabel.bordercolor': colour('--line'), 'hoverlabel.align': 'left',
    'hoverlabel.font.color': colour('--ink'), 'hoverlabel.font.family': colour('--sans'), 'hoverlabel.font.size': 12 };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    for (const part of ['gridcolor', 'linecolor', 'zerolinecolor', 'tickcolor']) flat[`${axis}.${part}`] = colour('--line');
  }
  return flat;
}

function painted(layout) {
  const copy = structuredClone(layout);
  for (const [path, value] of Object.entries(themeOf(layout))) {
    const keys = path.split('.');
    const last = keys.pop();
    keys.reduce((part, key) => (part[key] ??= {}), copy)[last] = value;
  }
  return copy;
}

async function draw(target, figure, config = {}) {
  if (!plotly || !figure) return;
  const data = figure.data.map((trace) => (trace.type === 'scattergl' && !hasWebgl() ? { ...trace, type: 'scatter' } : { ...trace }));
  await plotly.react(target, data, painted(figure.layout), { displayModeBar: false, responsive: true, ...config });
  drawn.set(target, figure.layout);
}

// After a change of theme: new colours, while the part that the reader zoomed to stays.
function repaint() {
  for (const [target, layout] of drawn) {
    if (target.isConnected) plotly.relayout(target, themeOf(layout));
    else drawn.delete(target);
  }
}
