"""What engines must answer, worked out from the load itself, and what is wrong with what they did answer."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

import telemetry
from telemetry import COST_UNIT_USD, DAY_MS, HOP_MS, MINUTE_MS

P95 = 0.95


@dataclass
class Findings:
    """How many answers were held against what is expected, and what is wrong with some; few examples of each."""

    checked: Counter = field(default_factory=Counter)
    wrong: Counter = field(default_factory=Counter)
    examples: dict = field(default_factory=lambda: defaultdict(list))

    def add(self, kind, example):
        self.wrong[kind] += 1
        if len(self.examples[kind]) < 3:
            self.examples[kind].append(example)


class Said:
    """Tells answers from what an engine only says again."""

    def __init__(self):
        self._identities, self._values = set(), {}

    def is_new(self, answer):
        """Whether it counts as an answer: what is said for the first time, or should not have been said again."""
        identity, place = (answer.question, answer.identity), (answer.question, answer.key, answer.start_ms)
        came_twice, is_said = identity in self._identities, place in self._values
        # The sum of a day goes on, that of a closed window does not.
        is_same = is_said and (answer.question == "alerts" or self._values[place] == answer.value)
        self._identities.add(identity)
        self._values[place] = answer.value
        return came_twice or not (answer.may_repeat and is_same)


class Expected:
    """The answers to the three questions about a load."""

    def __init__(self, load):
        self._load = load
        self._spend = self._sums(load)
        self._alerts = self._crossings(load)
        order = np.lexsort((load.latency_ms, load.end_ms // MINUTE_MS, load.model))
        self._by_minute = self._minutes(load, order)

    def _sums(self, load):
        minute = load.end_ms // MINUTE_MS * MINUTE_MS
        keys = np.stack([load.team, load.model, minute])
        unique, inverse = np.unique(keys, axis=1, return_inverse=True)
        units = np.bincount(inverse.ravel(), weights=load.cost_units)
        return {
            (f"{load.team_name(team)}|{load.model_name(model)}", start): sum_ * COST_UNIT_USD
            for (team, model, start), sum_ in zip(unique.T.tolist(), units.tolist())
        }

    def _crossings(self, load):
        """By team and day: the sum just behind the span that crosses, and that behind the record it lies in."""
        day = load.end_ms // DAY_MS * DAY_MS
        found = {}
        order = np.lexsort((np.arange(len(day)), day, load.team))
        starts = np.flatnonzero(np.diff(load.team[order] * 10**6 + day[order] // DAY_MS, prepend=-1))
        for rows in np.split(order, starts[1:]):
            total = np.cumsum(load.cost_units[rows]) * COST_UNIT_USD
            at = int(np.searchsorted(total, telemetry.BUDGET_USD))
            if at < len(total):
                last = int(np.flatnonzero(load.record[rows] == load.record[rows[at]])[-1])
                key = (load.team_name(int(load.team[rows[0]])), int(day[rows[0]]))
                found[key] = (float(total[at]), float(total[last]), int(load.record[rows[at]]))
        return found

    def _minutes(self, load, order):
        group = load.model[order] * 10**10 + load.end_ms[order] // MINUTE_MS
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        return {
            (load.model_name(int(load.model[rows[0]])), int(load.end_ms[rows[0]] // MINUTE_MS * MINUTE_MS)):
                load.latency_ms[rows]
            for rows in np.split(order, starts[1:])
        }

    def check(self, given, until_ms, seen_records, bound):
        """Holds the answers that an engine gave against these.

        `given`: question to list of (key, start of the window in ms, value). Windows that end by `until_ms` must all
        be there. `seen_records`: by partition, the last record of it that the engine has read for certain. `bound`: by
        how much of the value a p95 may be off.
        """
        findings = Findings()
        self._check_spend(given["spend"], until_ms, findings)
        self._check_alerts(given["alerts"], seen_records, findings)
        self._check_latency(given["latency"], until_ms, bound, findings)
        for question, answers in given.items():
            for place, times in Counter((key, start) for key, start, _ in answers).items():
                if times > 1:
                    findings.add(f"{question}: said more than once", (place, times))
        return findings

    def _check_spend(self, given, until_ms, findings):
        for key, start, value in given:
            findings.checked["spend"] += 1
            expected = self._spend.get((key, start))
            if value != expected:
                findings.add("spend: another sum", (key, start, value, expected))
        said = {(key, start) for key, start, _ in given}
        for place in self._spend:
            if place[1] + MINUTE_MS <= until_ms and place not in said:
                findings.add("spend: missing", place)

    def _check_alerts(self, given, seen_records, findings):
        for key, start, value in given:
            findings.checked["alerts"] += 1
            expected = self._alerts.get((key, start))
            if expected is None or value not in expected[:2]:
                findings.add("alerts: another record or day", (key, start, value, expected))
        said = {(key, start) for key, start, _ in given}
        for place, (_, _, record) in self._alerts.items():
            if record <= seen_records[self._load.partition[record]] and place not in said:
                findings.add("alerts: missing", place)

    def _check_latency(self, given, until_ms, bound, findings):
        for model, start, value in given:
            findings.checked["latency"] += 1
            parts = [self._by_minute.get((model, start + i * MINUTE_MS)) for i in range(HOP_MS // MINUTE_MS)]
            parts = [part for part in parts if part is not None]
            if not parts or not _is_quantile(np.sort(np.concatenate(parts)), value, bound):
                findings.add("latency: off its bound", (model, start, value))
        said = {(model, start) for model, start, _ in given}
        for model, minute in self._by_minute:
            for i in range(HOP_MS // MINUTE_MS):
                place = (model, minute - i * MINUTE_MS)
                if place[1] + HOP_MS <= until_ms and place not in said:
                    findings.add("latency: missing", place)
                    said.add(place)


def _is_quantile(ordered, value, bound):
    """Whether `value` is the p95 by one of the usual definitions, give or take `bound` of it."""
    rank = P95 * (len(ordered) - 1)
    low = ordered[max(0, math.floor(rank) - 1)]
    high = ordered[min(len(ordered) - 1, math.ceil(rank) + 1)]
    return low * (1 - bound) - 1e-9 <= value <= high * (1 + bound) + 1e-9
