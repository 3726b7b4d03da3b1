// Elements, how a page that is drawn anew every second keeps its focus, and how things are written.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Makes `old` look like `next` with as few changes as it takes: what has the focus, is selected or scrolled stays so.
function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName || old.dataset?.key !== next.dataset?.key) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const name of ['onclick', 'onchange', 'oninput', 'onsubmit', 'onpointermove', 'onpointerleave', 'onkeydown']) {
    old[name] = next[name];
  }
  if (!('keep' in old.dataset)) show(old, ...next.childNodes);
}

export function show(root, ...children) {
  const next = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  // A row that has moved is moved, and not made anew: somebody may be about to click it.
  const keyed = new Map([...root.childNodes].filter((node) => node.dataset?.key).map((node) => [node.dataset.key, node]));
  next.forEach((node, at) => {
    const own = node.dataset?.key && keyed.get(node.dataset.key);
    const old = root.childNodes[at];
    if (own && own !== old) root.insertBefore(own, old ?? null);
    const here = root.childNodes[at];
    if (here) morph(here, node);
    else root.append(node);
  });
  while (root.childNodes.length > next.length) root.lastChild.remove();
}

const NONE = '–';
const two = (number) => String(number).padStart(2, '0');

export function time(ms, withDate = false) {
  if (ms === null || ms === undefined) return NONE;
  const at = new Date(ms);
  const clock = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  const isToday = new Date().toISOString().slice(0, 10) === at.toISOString().slice(0, 10);
  return withDate || !isToday ? `${at.toISOString().slice(5, 10)} ${clock}` : clock;
}

export const stamp = (ms) => h('time', { datetime: ms ? new Date(ms).toISOString() : null, class: 'num' }, time(ms));

export function number(value, digits = 3) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(2);
  const fraction = Number.isInteger(value) ? 0 : Math.max(0, digits - Math.max(1, Math.ceil(Math.log10(size || 1))));
  return value.toLocaleString('en', { maximumFractionDigits: Math.min(fraction, 4) });
}

export function bytes(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${number(value)} ${units[unit]}`;
}

export function span(ms) {
  if (ms === null || ms === undefined) return NONE;
  const sign = ms < 0 ? '−' : '';
  const size = Math.abs(ms);
  if (size < 1000) return `${sign}${Math.round(size)} ms`;
  const seconds = size / 1000;
  if (seconds < 60) return `${sign}${number(seconds)} s`;
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${sign}${days} d ${hours} h`;
  return hours ? `${sign}${hours} h ${minutes} min` : `${sign}${minutes} min ${Math.floor(seconds % 60)} s`;
}

export const percent = (share) => `${number(share * 100, share < 0.1 ? 2 : 3)} %`;

// `team research, session lab-7f3a`: what a directive selects, without the quotes of JSON.
export const subject = (about) => h('span', { class: 'subject' },
  Object.entries(about).map(([name, value]) => h('span', {}, h('i', {}, name), value === null ? 'null' : String(value))));

export const subjectText = (about) => Object.values(about).map((value) => String(value)).join(' · ');

export const chip = (word, kind = word) => h('span', { class: `chip ${kind}` }, word);

export const empty = (...said) => h('p', { class: 'empty' }, said);

// A figure with its name; the name is what a screen reader says first.
export const figure = (name, value, note, kind) => h('div', { class: `figure ${kind ?? ''}` },
  h('dt', {}, name), h('dd', {}, h('b', { class: 'num' }, value), note ? h('small', {}, note) : null));

// A table; a column is [name, class, cell].
export function table(caption, columns, rows, key) {
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption }, h('table', {},
    h('thead', {}, h('tr', {}, columns.map(([name, kind]) => h('th', { scope: 'col', class: kind }, name)))),
    h('tbody', {}, rows.map((row) => h('tr', { 'data-key': key(row) },
      columns.map(([name, kind, cell]) => h('td', { class: kind, 'data-name': name }, cell(row))))))));
}
