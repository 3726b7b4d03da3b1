// Lines over time, as SVG. Sizes are in the units of the picture; the stylesheet gives it its width.

import { h, s, number, time } from './dom.js';

const extent = (values) => [Math.min(...values), Math.max(...values)];

const path = (points) => points.map(([x, y], at) => `${at ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

// A small line without axes. What it shows is said beside it.
export function spark(values, { width = 160, height = 32, floor = 0, kind = '' } = {}) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  const [low, high] = known.length ? extent([floor, ...known]) : [0, 1];
  const step = width / Math.max(1, values.length - 1);
  const y = (value) => height - 1.5 - ((value - low) / (high - low || 1)) * (height - 3);
  const points = values.map((value, at) => [at * step, y(value ?? low)]);
  const line = path(points);
  const box = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': true };
  return s('svg', { class: `spark ${kind}`, ...box },
    points.length > 1 ? [
      s('path', { class: 'area', d: `${line}L${width} ${height}L0 ${height}Z` }),
      s('path', { class: 'line', d: line })] : null);
}

// The line of a subject in a table: beside its threshold, at the same scale.
export function against(points, { width = 160, height = 28 } = {}) {
  if (points.length === 0) return null;
  const [from, to] = extent(points.map(([at]) => at));
  const top = Math.max(...points.flatMap(([, observed, threshold]) => [observed, threshold ?? observed])) * 1.05 || 1;
  const x = (at) => ((at - from) / (to - from || 1)) * width;
  const y = (value) => height - 1 - (value / top) * (height - 2);
  const thresholds = points.filter((point) => point[2] !== null).map(([at, , threshold]) => [x(at), y(threshold)]);
  const box = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': true };
  return s('svg', { class: 'spark against', ...box },
    s('path', { class: 'threshold', d: path(thresholds) }),
    s('path', { class: 'line', d: path(points.map(([at, observed]) => [x(at), y(observed)])) }));
}

function ticksOf(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) ticks.push(at);
  return ticks;
}

const DAY_MS = 86400e3;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400]
  .map((seconds) => seconds * 1000);

function timeTicks(from, to, count) {
  const step = TIME_STEPS.find((size) => size >= (to - from) / count) ?? DAY_MS * Math.ceil((to - from) / count / DAY_MS);
  const ticks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at);
  return ticks.map((at) => [at, step < 60000 ? time(at).slice(-8) : time(at).slice(-8, -3)]);
}

// Observed against threshold. `points` are [time, observed, threshold]; `events` are [time, observed, state].
export function chart({ points, events, unit, title, onpick, picked, width = 760 }) {
  const height = Math.round(Math.min(280, Math.max(200, width * 0.36)));
  const [left, right, upper, lower] = [54, 20, 14, 26];
  const [from, to] = extent(points.map(([at]) => at));
  const values = points.flatMap(([, observed, threshold]) => (threshold === null ? [observed] : [observed, threshold]));
  const [lowest, highest] = extent([0, ...values]);
  const top = highest + (highest - lowest) * 0.08 || 1;
  const x = (at) => left + ((at - from) / (to - from || 1)) * (width - left - right);
  const y = (value) => height - lower - ((value - lowest) / (top - lowest || 1)) * (height - upper - lower);
  const thresholds = points.filter((point) => point[2] !== null);
  const line = path(points.map(([at, observed]) => [x(at), y(observed)]));
  const at = picked ?? points.at(-1);
  const nearest = (moment) => points.reduce((best, point) => (
    Math.abs(point[0] - moment) < Math.abs(best[0] - moment) ? point : best));
  const pick = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    onpick(nearest(from + Math.min(1, Math.max(0, share)) * (to - from)));
  };
  const walk = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    onpick(points[Math.min(points.length - 1, Math.max(0, points.indexOf(at) + step))]);
  };
  const share = at[2] ? `, ${Math.round((at[1] / at[2]) * 100)} % of the threshold` : '';
  const against = at[2] === null ? '' : ` against ${number(at[2])}`;
  const said = `${time(at[0])}: ${number(at[1])}${against} ${unit ?? ''}${share}`;
  return h('figure', { class: 'chart' },
    h('figcaption', {}, h('strong', {}, title), h('output', { class: 'num', 'aria-live': 'off' }, said)),
    s('svg', {
      viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0,
      'aria-label': `${title}. ${said}. Arrow keys move along the line.`, onpointermove: pick, onpointerleave: () => onpick(null), onkeydown: walk,
    },
    ticksOf(lowest, top, 4).map((value) => s('g', { class: 'tick' },
      s('line', { x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      s('text', { x: left - 8, y: y(value) + 4, 'text-anchor': 'end' }, number(value)))),
    timeTicks(from, to, width / 110).map(([moment, text]) => s('text', {
      class: 'tick', x: x(moment), y: height - 8, 'text-anchor': 'middle',
    }, text)),
    thresholds.length ? [
      s('path', { class: 'threshold', d: path(thresholds.map(([moment, , value]) => [x(moment), y(value)])) }),
      s('text', { class: 'threshold-name', x: left + 6, y: y(thresholds[0][2]) - 6 }, 'threshold')] : null,
    s('path', { class: 'area', d: `${line}L${x(to).toFixed(1)} ${y(lowest)}L${x(from).toFixed(1)} ${y(lowest)}Z` }),
    s('path', { class: 'line', d: line }),
    (events ?? []).filter(([moment]) => moment >= from && moment <= to).map(([moment, value, state]) => s('circle', {
      class: `event ${state}`, cx: x(moment), cy: y(value ?? nearest(moment)[1]), r: 4.5,
    }, s('title', {}, `${state} at ${time(moment)}`))),
    s('line', { class: 'cursor', x1: x(at[0]), x2: x(at[0]), y1: upper, y2: height - lower }),
    s('circle', { class: 'cursor-dot', cx: x(at[0]), cy: y(at[1]), r: 3.5 })));
}
