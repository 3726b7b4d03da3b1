// All rules, and one rule: what it says, how it runs, what its subjects measure.

import { h, bytes, chip, empty, figure, number, percent, span, stamp, subject, subjectText, table, time } from './dom.js';
import { against, chart } from './chart.js';
import { highlighted } from './sql.js';
import { eventRow } from './overview.js';

const stateChip = (rule) => chip(rule.state, `state-${rule.state}`);

export const rules = {
  ask: () => ['rules'],
  draw({ answers: [{ rules: all }] }) {
    return [
      h('h1', {}, 'Rules', h('small', { class: 'count' }, number(all.length))),
      table('Rules', [
        ['Rule', 'name wide', (rule) => [
          h('a', { href: `#/rules/${rule.name}` }, rule.name), h('p', { class: 'summary' }, rule.quarantined ?? rule.summary)]],
        ['State', '', (rule) => [stateChip(rule), rule.mode === 'shadow' ? chip('shadow') : null]],
        ['Asks for', '', (rule) => chip(rule.action)],
        ['Holds', 'right num', (rule) => (
          rule.firing ? h('a', { href: `#/directives?rule=${rule.name}` }, number(rule.firing)) : '0')],
        ['Pending', 'right num', (rule) => number(rule.pending)],
        ['Events', 'right num', (rule) => number(rule.events)],
        ['Groups', 'right num', (rule) => number(rule.groups)],
        ['State size', 'right num', (rule) => bytes(rule.state_bytes)],
        ['Core', 'right num', (rule) => percent(rule.cpu_share)],
      ], all, (rule) => rule.name),
      h('p', { class: 'note' }, 'Core is the share of one core that scanning and judging took over the last ten seconds; '
        + 'of sums that rules share each bears a part. Groups and state are those of the shards that this instance owns.'),
    ];
  },
};

// What the reader has chosen on this page; it is nobody else's business.
const chosen = { rule: null, subject: null, picked: null };

const keyOf = (series) => JSON.stringify(series.subject);

const fraction = (value) => Math.max(0, Math.min(1, value));

function closenessBar(series) {
  const last = series.points.at(-1);
  if (!last?.[2]) return '';
  const share = last[1] / last[2];
  const x = fraction(share) * 100;
  return h('span', { class: `closeness ${share >= 1 ? 'over' : share >= 0.8 ? 'near' : ''}` },
    h('progress', { max: 100, value: x.toFixed(0), 'aria-label': 'of the threshold' }),
    h('b', { class: 'num' }, `${Math.round(share * 100)} %`));
}

function lines(series, events, context) {
  const subjects = series.filter((line) => line.points.length > 1);
  if (subjects.length === 0) return empty('Nothing was measured yet. A line begins with the second look, or the second event.');
  const wanted = context.query.get('subject') ?? chosen.subject;
  const line = subjects.find((one) => keyOf(one) === wanted) ?? subjects[0];
  const own = keyOf(line);
  const marks = events.filter((event) => keyOf(event) === own).map((event) => [event.at, event.observed, event.state]);
  const pick = (point) => {
    chosen.picked = point?.[0] ?? null;
    context.redraw();
  };
  const width = Math.round(Math.min(1040, Math.max(320, document.getElementById('main').clientWidth - 34)));
  return [
    chart({
      points: line.points, events: marks, unit: line.unit, title: subjectText(line.subject), onpick: pick, width,
      picked: line.points.find(([at]) => at === chosen.picked),
    }),
    table('Subjects', [
      ['Subject', 'wide', (one) => h('button', {
        type: 'button', class: 'link', 'aria-pressed': String(keyOf(one) === own),
        onclick: () => {
          [chosen.subject, chosen.picked] = [keyOf(one), null];
          context.redraw();
        },
      }, subject(one.subject))],
      ['', 'line-cell', (one) => against(one.points)],
      ['Observed', 'right num', (one) => number(one.points.at(-1)[1])],
      ['Threshold', 'right num', (one) => number(one.points.at(-1)[2])],
      ['Unit', '', (one) => one.unit ?? ''],
      ['Of threshold', 'bar-cell', closenessBar],
      ['As of', 'when', (one) => stamp(one.points.at(-1)[0])],
    ], subjects, keyOf),
  ];
}

function lookNote(look, emission) {
  const own = 'Lines are of event time and of the shards that this instance owns: at most 20 subjects, those that come '
    + 'closest, with 240 points each. ';
  if (!look) return `${own}So far only events are in them.`;
  const all = `${number(look.groups)} groups`;
  const seen = look.looked_at < look.groups ? `the first ${number(look.looked_at)} of ${all}` : all;
  const when = emission === 'on close' ? `of the window that ended at ${time(look.at)}` : 'of the window that ends next';
  return `${own}The last look saw ${seen} ${when}, violating or not.`;
}

const option = ([name, value]) => (value === null ? null : h('div', {}, h('dt', {}, name), h('dd', {}, value)));

export const rule = {
  every: 1500,
  ask: ({ name }) => [`rules/${name}`, `events?rule=${name}&limit=50`],
  draw(context) {
    const [{ status, card, look, series }, { events }] = context.answers;
    if (chosen.rule !== status.name) Object.assign(chosen, { rule: status.name, subject: null, picked: null });
    return [
      h('h1', {}, status.name),
      h('p', { class: 'lede' }, stateChip(status), chip(status.action), status.mode === 'shadow' ? chip('shadow') : null,
        card?.description ?? 'Its text is not known here.'),
      status.quarantined ? h('p', { class: 'banner bad', role: 'alert' }, `Quarantined: ${status.quarantined}. `,
        'Mend the rule; it gets another try with every reload.') : null,
      h('dl', { class: 'figures' },
        figure('Holds', number(status.firing), status.pending ? `${number(status.pending)} pending` : '',
          status.firing ? 'hot' : ''),
        figure('Events', number(status.events), status.last_event ? `the last at ${time(status.last_event)}` : 'none yet'),
        figure('Groups', number(status.groups), bytes(status.state_bytes)),
        figure('Core', percent(status.cpu_share), `${span(status.spent_ms)} in all`)),
      h('section', {}, h('h2', {}, 'Observed against threshold'), lines(series, events, context),
        h('p', { class: 'note' }, lookNote(look, card?.emission))),
      h('section', {}, h('h2', {}, 'Events ', h('a', { class: 'more', href: `#/directives?rule=${status.name}` }, 'what holds')),
        events.length ? table('Events of this rule', eventRow.filter(([name]) => name !== 'Rule'), events, (event) => event.id)
          : empty('None yet.')),
      card ? h('section', {}, h('h2', {}, 'Rule'),
        h('dl', { class: 'options' }, [...Object.entries(card.options), ['window', card.window], ['speaks', card.emission],
          ['owner', card.owner || null], ['file', card.file], ['version', card.version]].map(option)),
        highlighted(card.sql)) : null,
      card ? h('section', {}, h('h2', {}, 'How it runs'),
        h('pre', { class: 'explain', tabindex: 0 }, card.explain.trimEnd())) : null,
    ];
  },
};
