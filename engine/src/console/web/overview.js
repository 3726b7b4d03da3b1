// The first page: is it well, how much comes in, what fires.

import { h, chip, empty, figure, number, percent, span, stamp, subject, table } from './dom.js';
import { spark } from './chart.js';

// Per second, over so many of the last seconds: one alone jumps.
const OVER = 5;

function rates(seconds, name) {
  return seconds.map((second, at) => {
    const before = seconds[Math.max(0, at - OVER)];
    const passed = (second.at - before.at) / 1000;
    return passed > 0 ? Math.max(0, second[name] - before[name]) / passed : 0;
  });
}

function trend(name, value, values, note, kind) {
  return h('div', { class: 'trend' }, figure(name, value, note, kind), spark(values, { height: 36 }));
}

export const directiveLink = (one) => h('a', { class: 'plain', href: `#/directives/${one.directive_id}` }, subject(one.subject));

export const eventRow = [
  ['Time', 'when', (event) => stamp(event.at)],
  ['', 'state', (event) => chip(event.state)],
  ['Rule', 'name', (event) => h('a', { href: `#/rules/${event.rule}` }, event.rule)],
  ['Subject', '', (event) => directiveLink(event)],
  ['Action', '', (event) => [chip(event.action), event.mode === 'shadow' ? chip('shadow') : null]],
  ['Observed', 'right num', (event) => measured(event)],
];

export function measured({ observed, threshold, unit }) {
  if (observed === null || observed === undefined) return '';
  const against = threshold === null ? null : h('small', {}, ` / ${number(threshold)}`);
  return [number(observed), against, unit ? h('small', {}, ` ${unit}`) : null];
}

function heldBack(signals) {
  return h('ul', { class: 'plain-list' }, signals.map(({ signal, watermark, held_by }) => h('li', { 'data-key': signal },
    h('span', {}, signal), stamp(watermark),
    h('small', {}, !held_by ? 'all idle: goes on with the clock'
      : `${held_by.topic}[${held_by.partition}] ${held_by.high === null ? 'has no rows yet' : 'holds it back'}`))));
}

export const overview = {
  ask: () => ['rules', 'events?limit=12'],
  draw({ about, answers: [{ rules }, { events }] }) {
    const { health, seconds, totals, signals, firing, by_action: actions } = about;
    const [records, published] = [rates(seconds, 'records'), rates(seconds, 'events')];
    const last = seconds.at(-1) ?? {};
    const { running, warming, quarantined, reload_refused: refused } = about.rules;
    const hot = rules.filter((rule) => rule.firing > 0).sort((a, b) => b.firing - a.firing);
    return [
      h('h1', {}, 'Overview'),
      health.why ? h('p', { class: 'banner bad', role: 'alert' }, health.why) : null,
      quarantined ? h('p', { class: 'banner bad' }, h('a', { href: '#/rules' }, `${quarantined} quarantined: `
        + rules.filter((rule) => rule.quarantined).map((rule) => rule.name).join(', '))) : null,
      refused ? h('p', { class: 'banner bad' },
        h('a', { href: '#/reloads' }, 'Changed rules were refused; the ones before stay in use')) : null,
      h('dl', { class: 'trends' },
        trend('Records', `${number(records.at(-1) ?? 0)}/s`, records, `${number(totals.records)} so far`),
        trend('Consumer lag', number(last.lag), seconds.map((second) => second.lag),
          last.lag === null ? 'not known here' : 'records not read yet'),
        trend('Watermark delay', span(last.delay_ms), seconds.map((second) => second.delay_ms),
          'event time behind the clock'),
        trend('Events', `${number(published.at(-1) ?? 0)}/s`, published,
          totals.latency_ms === null ? 'none yet'
            : `${number(totals.events)} so far, the last took ${span(totals.latency_ms)}`)),
      h('dl', { class: 'figures' },
        figure('Directives that hold', number(firing),
          Object.entries(actions).map(([action, count]) => `${count} ${action}`).join(', '), firing ? 'hot' : ''),
        figure('Rules running', number(running), [warming ? `${warming} warming` : null,
          quarantined ? `${quarantined} quarantined` : null].filter(Boolean).join(', ') || 'all well'),
        figure('Late rows', number(totals.late_rows),
          totals.rows ? `${percent(totals.late_rows / (totals.rows + totals.late_rows))} of all rows` : ''),
        figure('Dead letters', number(totals.dead_letters), h('a', { href: '#/dead-letters' }, 'the last ones'))),
      h('div', { class: 'columns' },
        h('section', {}, h('h2', {}, 'What fires'),
          hot.length ? table('Rules that fire', [
            ['Rule', 'name', (rule) => h('a', { href: `#/rules/${rule.name}` }, rule.name)],
            ['Asks for', '', (rule) => chip(rule.action)],
            ['Holds', 'right num', (rule) => h('a', { href: `#/directives?rule=${rule.name}` }, number(rule.firing))],
          ], hot, (rule) => rule.name) : empty('Nothing: every subject keeps to its rules.')),
        h('section', {}, h('h2', {}, 'Event time'),
          signals.length ? heldBack(signals) : empty('No telemetry was read yet.'))),
      h('section', {}, h('h2', {}, 'Last events ', h('a', { class: 'more', href: '#/events' }, 'all')),
        events.length ? table('Last events', eventRow, events, (event) => event.id) : empty('None yet.')),
    ];
  },
};
