// Colours SQL: comments, texts, numbers, words of the language. It need not understand it.

import { h } from './dom.js';

const WORDS = new Set(('all and as asc between by case cast close create cross day days desc distinct else emit end exists '
  + 'external false fill filter following for from full gap group having hour hours in inner interval is join left like '
  + 'location minute minutes not null on or order over partition preceding qualify row rows rule second seconds select '
  + 'semi anti set sets stored table then true union update using values view when where window with within')
  .split(' '));

const TOKEN = /(--[^\n]*|\/\*[^]*?\*\/)|('(?:[^']|'')*')|("[^"]*")|(\b\d+(?:\.\d+)?\b)|(\b[A-Za-z_][A-Za-z0-9_]*\b)/g;

export function highlighted(text) {
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(TOKEN)) {
    const [token, comment, quoted, , numeral, word] = found;
    parts.push(text.slice(last, found.index));
    last = found.index + token.length;
    const after = text.slice(last).trimStart()[0];
    const kind = comment ? 'comment' : quoted ? 'text' : numeral ? 'numeral'
      : word && WORDS.has(word.toLowerCase()) ? 'word' : word && after === '(' ? 'call' : null;
    parts.push(kind ? h('span', { class: `sql-${kind}` }, token) : token);
  }
  return h('pre', { class: 'sql', tabindex: 0 }, h('code', {}, parts, text.slice(last)));
}
