// Data of the report: deflated JSON in base64, inside the page; blocks of latents are read when they are needed.

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflated(name) {
  const bytes = bytesOf(document.getElementById(`data-${name}`).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).text();
}

const blocks = new Map();

// What is known of one latent beyond the table: histogram, contexts, terms and claims of every method.
async function detailOf(core, index) {
  const block = Math.floor(index / core.block);
  if (!blocks.has(block)) {
    if (blocks.size > 40) blocks.delete(blocks.keys().next().value);
    blocks.set(block, inflated(`block-${block}`).then(JSON.parse));
  }
  return (await blocks.get(block))[index % core.block];
}

// Plotly, unpacked from the page; resolves to null where the browser cannot run it.
async function loadPlotly() {
  const source = await inflated('plotly');
  const address = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  return new Promise((resolve) => {
    const script = document.createElement('script');
    script.onload = () => { URL.revokeObjectURL(address); resolve(window.Plotly || null); };
    script.onerror = () => resolve(null);
    script.src = address;
    document.head.append(script);
  });
}
