// Pages that are lists: directives, events, partitions, dead letters, reloads.

import { reload } from './ask.js';
import { h, bytes, chip, empty, figure, number, span, stamp, subject, table, time } from './dom.js';
import { directiveLink, eventRow, measured } from './overview.js';

const ACTIONS = ['block', 'throttle', 'warn', 'notify'];

const encoded = (query, names) => names.map((name) => [name, query.get(name)]).filter(([, value]) => value)
  .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');

function change(query, name, value, page) {
  const next = new URLSearchParams(query);
  if (value) next.set(name, value);
  else next.delete(name);
  location.hash = `#/${page}?${next}`;
}

function chooser(label, name, values, query, page) {
  const onchange = (event) => change(query, name, event.target.value, page);
  return h('label', { class: 'chooser' }, label, h('select', { 'data-keep': '', onchange },
    h('option', { value: '' }, 'all'),
    values.map((value) => h('option', { value, selected: query.get(name) === value }, value))));
}

function filters(query, rules, page) {
  const words = query.get('q');
  return h('div', { class: 'filters', 'data-key': `${page} ${rules.length} ${query.get('rule')} ${query.get('action')}` },
    chooser('Rule', 'rule', rules.map((rule) => rule.name), query, page),
    chooser('Action', 'action', ACTIONS, query, page),
    words ? h('button', { type: 'button', onclick: () => {
      document.getElementById('search').value = '';
      change(query, 'q', '', page);
    } }, `“${words}” ×`) : null);
}

const directiveColumns = [
  ['Action', '', (one) => [chip(one.action), one.mode === 'shadow' ? chip('shadow') : null]],
  ['Subject', '', directiveLink],
  ['Rule', 'name', (one) => h('a', { href: `#/rules/${one.rule}` }, one.rule)],
  ['Why', 'why', (one) => one.message ?? one.reason_code],
  ['Observed', 'right num', measured],
  ['Since', 'when', (one) => stamp(one.since)],
  ['Until', 'when', (one) => stamp(one.valid_until)],
];

export const directives = {
  ask: ({ query }) => [`directives?${encoded(query, ['q', 'rule', 'action'])}`, 'rules'],
  draw({ query, answers: [{ firing, found, directives: rows, collected_max: max }, { rules }] }) {
    const more = [
      found > rows.length ? `The first ${rows.length} of ${number(found)} are shown: search for others. ` : '',
      firing > max ? `Of ${number(firing)} that hold ${number(max)} are collected here; lictor.directives has them all. ` : '',
      'What you see is what the shards of this instance have decided; times are event time.'];
    const none = firing > max ? `None of the ${number(max)} that are collected is what you search for.`
      : firing ? 'None of them is what you search for.' : 'None: every subject keeps to its rules.';
    return [
      h('h1', {}, 'Directives that hold', h('small', { class: 'count' }, number(found))),
      filters(query, rules, 'directives'),
      rows.length ? table('Directives that hold', directiveColumns, rows, (one) => one.directive_id)
        : empty(none),
      h('p', { class: 'note' }, more.join('')),
    ];
  },
};

const written = (value) => (typeof value === 'number' ? number(value, 6) : String(value));

const listed = (about) => h('dl', { class: 'options' },
  Object.entries(about).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, written(value)))));

function exemplars(all) {
  if (!all?.length) return null;
  return h('section', {}, h('h2', {}, 'Exemplars'), table('Exemplars', [
    ['Trace', 'mono', (one) => one.trace_id],
    ['Span', 'mono', (one) => one.span_id],
    ['Weighs', 'right num', (one) => number(one.value)],
    ['Partition', 'right num', (one) => one.partition],
    ['Offset', 'right num', (one) => one.offset],
  ], all, (one) => one.span_id));
}

const why = ['Why', 'why', (event) => event.message ?? ''];

export const directive = {
  ask: ({ name }) => [`directives?id=${name}`, `events?id=${name}`],
  draw({ name, answers: [{ firing, collected_max: max, directives: [now] }, { events: past }] }) {
    const one = now ?? past[0];
    const isOver = !now && past[0] && !['firing', 'updated'].includes(past[0].state);
    if (!one) {
      const why = firing > max
        ? `It is not among the ${number(max)} that are collected here, and not in the last events: lictor.directives has it if it holds.`
        : 'It is not known here: another instance owns its shard, or it ended long ago.';
      return [h('h1', {}, 'Directive'), empty(why), h('p', { class: 'mono' }, name)];
    }
    const inChart = `#/rules/${one.rule}?subject=${encodeURIComponent(JSON.stringify(one.subject))}`;
    const columns = eventRow.filter(([column]) => column !== 'Rule' && column !== 'Subject');
    const window = one.window ? `window ${time(one.window.start)} to ${time(one.window.end)}` : '';
    const against = one.threshold === null ? one.unit : `of ${number(one.threshold)} ${one.unit ?? ''}`;
    return [
      h('h1', {}, subject(one.subject)),
      h('p', { class: 'lede' }, now ? chip(one.action) : chip(past[0].state), one.mode === 'shadow' ? chip('shadow') : null,
        h('a', { href: inChart }, one.rule), ' ', one.message ?? one.reason_code ?? ''),
      h('dl', { class: 'figures' },
        figure('Observed', number(one.observed), against, now ? 'hot' : ''),
        figure('Since', time(one.since), window),
        figure(isOver ? 'Ended' : 'Holds until', time(isOver ? one.at : one.valid_until),
          now ? 'unless it is renewed' : isOver ? past[0].state : 'as it was said last: it is not among those collected here'),
        figure('Revision', number(one.revision), one.result)),
      Object.keys(one.evidence ?? {}).length ? h('section', {}, h('h2', {}, 'Evidence'), listed(one.evidence)) : null,
      exemplars(one.exemplars),
      h('section', {}, h('h2', {}, 'Its events'),
        past.length ? table('Events of this directive', [...columns, why], past, (event) => event.id)
          : empty('None of the last thousand.')),
      h('p', { class: 'note mono' }, name),
    ];
  },
};

export const events = {
  ask: ({ query }) => [`events?${encoded(query, ['q', 'rule', 'action'])}`, 'rules'],
  draw({ query, answers: [{ events: rows, total, kept_max: max }, { rules }] }) {
    return [
      h('h1', {}, 'Events', h('small', { class: 'count' }, `${number(total)} since the start`)),
      filters(query, rules, 'events'),
      rows.length ? table('Events', [...eventRow, why], rows, (event) => event.id) : empty('None.'),
      h('p', { class: 'note' }, `The last ${number(max)} of this instance are kept, and the newest 200 that fit are shown; `
        + 'lictor.enforcement has all.'),
    ];
  },
};

function heldBy(partition) {
  if (!partition) return 'nobody: all are idle, and time goes on with the clock';
  const name = `${partition.topic}[${partition.partition}]`;
  return partition.high === null ? `${name}, which has no rows yet`
    : `${name}, whose newest row is of ${time(partition.high)}`;
}

export const partitions = {
  ask: () => ['partitions'],
  draw({ answers: [{ instance, signals, partitions: rows, now }] }) {
    return [
      h('h1', {}, 'Partitions', h('small', { class: 'count' }, number(rows.length))),
      h('section', {}, h('h2', {}, 'Event time'), signals.length ? table('Event time', [
        ['Signal', 'name', (one) => one.signal],
        ['Watermark', 'when', (one) => stamp(one.watermark)],
        ['Behind the clock', 'right num', (one) => span(one.watermark === null ? null : now - one.watermark)],
        ['Held back by', '', (one) => heldBy(one.held_by)],
      ], signals, (one) => one.signal) : empty('No telemetry was read yet.')),
      h('section', {}, h('h2', {}, 'Input partitions'), rows.length ? table('Input partitions', [
        ['Partition', 'name', (one) => `${one.topic}[${one.partition}]`],
        ['Signal', '', (one) => one.signal],
        ['', '', (one) => [
          one.holds_time_back ? chip('holds time back', 'late') : null, one.idle ? chip('idle', 'expired') : null]],
        ['Newest row', 'when', (one) => stamp(one.high)],
        ['Lag', 'right num', (one) => number(one.lag)],
        ['Late rows', 'right num', (one) => number(one.late_rows)],
        ['Dead letters', 'right num', (one) => number(one.dead_letters)],
      ], rows, (one) => `${one.topic}[${one.partition}]`) : empty('None is known yet.')),
      h('p', { class: 'note' }, `This instance reads ${number(instance.partitions)} of these partitions and owns `
        + `${instance.shards} of ${instance.shards_of} shards. Newest rows are known of all partitions; lag, late rows and dead letters `
        + 'only of those that are read here.'),
    ];
  },
};

export const deadLetters = {
  ask: () => ['dead-letters'],
  draw({ answers: [{ total, letters }] }) {
    return [
      h('h1', {}, 'Dead letters', h('small', { class: 'count' }, number(total))),
      letters.length ? table('Dead letters', [
        ['Time', 'when', (one) => stamp(one.at)],
        ['Partition', 'name', (one) => `${one.topic}[${one.partition}]`],
        ['Offset', 'right num', (one) => String(one.offset)],
        ['Reason', '', (one) => chip(one.reason, 'late')],
        ['Error', 'why', (one) => one.message],
        ['Size', 'right num', (one) => bytes(one.bytes)],
      ], letters, (one) => `${one.topic} ${one.partition} ${one.offset} ${one.reason}`)
        : empty('None: every record could be decoded.'),
      h('p', { class: 'note' }, 'The last 100 of this instance. Payloads are not kept and never shown, and what an error quotes '
        + 'is left out: they may be somebody’s prompts. The dead-letter topic has the bytes; with partition p and offset o of the table: ',
      h('code', {}, 'kcat -b BROKER -t TOPIC -C -p p -o o -c 1')),
    ];
  },
};

// What has come of the button, until the page is left.
const button = { isBusy: false, said: null };

function reloadButton({ access, refresh, redraw }) {
  if (!access.can_reload) {
    return h('p', { class: 'note' }, 'Rules are read again within seconds when their files change. ',
      'console.allow_reload puts a button here.');
  }
  return h('p', {}, h('button', {
    type: 'button', class: 'primary', disabled: button.isBusy,
    onclick: async () => {
      button.isBusy = true;
      redraw();
      try {
        button.said = (await reload()).applied ? 'Applied.' : 'Refused: see below.';
      } catch (error) {
        button.said = error.message;
      }
      button.isBusy = false;
      refresh();
    },
  }, 'Read the rules again'), ' ', h('span', { role: 'status' }, button.said ?? ''));
}

export const reloads = {
  ask: () => ['reloads', 'rules'],
  draw(context) {
    const [{ notes }, { rules }] = context.answers;
    const quarantined = rules.filter((one) => one.quarantined);
    return [
      h('h1', {}, 'Reloads and quarantine'),
      reloadButton(context),
      h('section', {}, h('h2', {}, 'Quarantine'), quarantined.length ? table('Quarantined rules', [
        ['Rule', 'name', (one) => h('a', { href: `#/rules/${one.name}` }, one.name)],
        ['Why', 'why', (one) => one.quarantined],
      ], quarantined, (one) => one.name) : empty('No rule has failed.')),
      h('section', {}, h('h2', {}, 'Rules read'), notes.map((note) => h('article', {
        class: `reading ${note.applied ? '' : 'refused'}`, 'data-key': note.at,
      },
        h('h3', {}, stamp(note.at), chip(note.applied ? 'applied' : 'refused', note.applied ? 'resolved' : 'block')),
        h('pre', { tabindex: 0 }, note.text.trimEnd())))),
    ];
  },
};
