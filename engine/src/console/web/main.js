// Which page is shown, and when it asks again. Pages are modules: `ask` says what of the API, `draw` makes the elements.

import { ask, Refused, token } from './ask.js';
import { h, show, empty } from './dom.js';
import { overview } from './overview.js';
import { rules, rule } from './rules.js';
import { directives, directive, events, partitions, deadLetters, reloads } from './lists.js';

const PAGES = [
  [/^\/?$/, overview],
  [/^\/rules$/, rules],
  [/^\/rules\/([a-z0-9_]+)$/, rule],
  [/^\/directives$/, directives],
  [/^\/directives\/([0-9a-f]+)$/, directive],
  [/^\/events$/, events],
  [/^\/partitions$/, partitions],
  [/^\/dead-letters$/, deadLetters],
  [/^\/reloads$/, reloads],
];

const NAMES = [
  ['/', 'Overview'], ['/rules', 'Rules'], ['/directives', 'Directives'], ['/events', 'Events'],
  ['/partitions', 'Partitions'], ['/dead-letters', 'Dead letters'], ['/reloads', 'Reloads'],
];

const element = (id) => document.getElementById(id);
const [main, nav, where, stale, search] = ['main', 'nav', 'where', 'stale', 'search'].map(element);

let access = { needs_token: false, can_reload: false };
let shown = null;
let timer = null;
let turn = 0;

// `#/rules/x?subject=y` as page, what its address says, and what its query says.
function address() {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  const found = PAGES.map(([pattern, page]) => [path.match(pattern), page]).find(([match]) => match);
  return { path, page: found?.[1], name: found?.[0]?.[1], query: new URLSearchParams(query ?? '') };
}

function drawNav(path, about) {
  const root = `/${path.split('/')[1] ?? ''}`;
  show(nav, h('ul', {}, NAMES.map(([href, name]) => h('li', {},
    h('a', { href: `#${href}`, 'aria-current': root === href ? 'page' : null }, name)))));
  if (!about) return;
  const { instance, health } = about;
  const state = health.alive ? (health.ready ? 'ready' : 'starting') : 'hanging';
  show(where,
    h('p', {}, h('span', { class: `dot ${state}` }), state),
    h('p', {}, instance.application_id, h('small', {}, instance.instance_id)),
    h('p', {}, h('small', {}, `owns ${instance.shards} of ${instance.shards_of} shards, `,
      `reads ${instance.partitions} partitions`)),
    h('p', {}, h('small', {}, `lictor ${instance.version} · times are UTC`)));
}

// Asks once more and draws; a page that was left meanwhile draws nothing.
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  const mine = ++turn;
  const { path, page, name, query } = address();
  const context = { name, query, access, redraw: () => draw(context), refresh };
  if (!page) {
    show(main, h('h1', {}, 'Nothing here'), empty('There is no such page. ', h('a', { href: '#/' }, 'To the overview')));
    return;
  }
  try {
    const paths = ['overview', ...page.ask(context)];
    const [about, ...answers] = await Promise.all(paths.map(ask));
    if (mine !== turn) return;
    Object.assign(context, { about, answers, page, path });
    draw(context);
    stale.hidden = true;
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof Refused && error.status === 401) {
      return login(token.get() || !access.needs_token ? error.message : '');
    }
    if (error instanceof Refused && error.status === 404) {
      show(main, h('h1', {}, 'Nothing here'), empty('There is nothing of this name.'));
    }
    stale.textContent = `What you see is old: ${error instanceof Refused ? error.message : 'lictor does not answer'}.`;
    stale.hidden = false;
  }
  timer = setTimeout(refresh, page.every ?? 1000);
}

function draw(context) {
  const { page, path, about } = context;
  drawNav(path, about);
  const isNew = shown !== path;
  if (isNew) main.replaceChildren();
  show(main, ...page.draw(context));
  const title = main.querySelector('h1')?.textContent ?? 'lictor';
  document.title = title === 'Overview' ? 'lictor' : `${title} · lictor`;
  main.dataset.drawn = String(Number(main.dataset.drawn ?? 0) + 1);
  if (isNew && shown !== null) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  shown = path;
}

function login(fault) {
  const dialog = element('login');
  element('login-fault').textContent = fault;
  token.forget();
  if (!dialog.open) dialog.showModal();
}

element('login-form').addEventListener('submit', () => {
  token.set(element('token').value.trim());
  element('token').value = '';
  // The dialog closes first; it opens again if this was not the token.
  setTimeout(refresh);
});
element('login').addEventListener('cancel', (event) => event.preventDefault());

element('find').addEventListener('submit', (event) => {
  event.preventDefault();
  location.hash = `#/directives?q=${encodeURIComponent(search.value)}`;
});
let typed = null;
search.addEventListener('input', () => {
  clearTimeout(typed);
  typed = setTimeout(() => {
    const query = new URLSearchParams(address().path === '/directives' ? address().query : '');
    query.set('q', search.value);
    location.hash = `#/directives?${query}`;
  }, 150);
});

document.addEventListener('keydown', (event) => {
  const isTyping = event.target.closest?.('input, textarea, select, dialog');
  if (event.key === '/' && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === 'Escape' && event.target === search) main.focus();
});
// A link to `#main` would be taken for a page.
element('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', refresh);
document.addEventListener('visibilitychange', refresh);

async function begin() {
  try {
    access = await ask('access');
  } catch {
    // The page says by itself that nobody answers.
  }
  search.value = address().query.get('q') ?? '';
  if (access.needs_token && !token.get()) {
    drawNav(address().path);
    login('');
  } else {
    refresh();
  }
}
begin();
