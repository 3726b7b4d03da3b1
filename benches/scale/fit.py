"""Coefficients of the model from what was measured, and what the model says of the same runs."""

from collections import defaultdict
from statistics import median

import model
import numpy as np
from measure import LIVE_MARKS_PER_S

# What a record of the load leads to: the sums of its team's budget, of the team's models, of the models.
TEAMS, MODELS, SPANS_PER_RECORD = 48, 8, 50
ROWS_PER_SPAN = (1 + MODELS + MODELS) / SPANS_PER_RECORD
GROUPS = TEAMS + TEAMS * MODELS + MODELS
# A mark is a team of its own: a row of each rule, shared with nobody.
ROWS_PER_MARK = 3


class Run:
    """A steady state, in the model's terms; rates are of all instances together."""

    def __init__(self, said):
        self.said = said
        self.instances, self.shards = len(said["shards"]), said.get("of_partitions", 12)
        self.rate = sum(said["rows_per_s"])
        self.flushes, self.commits = said["scan_commits_per_s"], said["judge_commits_per_s"]
        self.events, self.offsets = said["events_per_s"], sum(said["offsets_per_s"].values())
        self.is_live = "phase" in said

    def thread(self, *names):
        """Cores that threads of these names are busy; librdkafka's are `rdk`."""
        spent = self.said["thread_us_per_span"]
        return sum(us for name, us in spent.items() if name.split(":")[0] in names) * self.rate / 1e6

    def judging(self):
        """The thread that judges is the first one and bears the binary's name."""
        others = ("scan", "scan-committer", "scan-restorer", "rdk", "http", "reload", "backfiller", "judge-restorer")
        return sum(self.said["cores"]) - self.thread(*others)

    def draws(self):
        return self.rate * ROWS_PER_SPAN

    def marks(self):
        return LIVE_MARKS_PER_S * ROWS_PER_MARK

    def exchanged_rows(self):
        return self.flushes * model.distinct(self.draws() / self.flushes, GROUPS) + self.marks()

    def logged_rows(self):
        """Each shard commits as often as its instance does."""
        times = self.shards * self.commits / self.instances
        return 2 * (times * model.distinct(self.exchanged_rows() / times, GROUPS / self.shards) + self.marks())


def runs_of(results):
    """By kind: steady states."""
    found = []
    for result in (result for result in results if "failed" not in result):
        found += [Run(said) for said in (result["phases"] if result["kind"] == "joins" else [result])]
    return found


def fitted(results):
    """Name to value, of what can be told from these runs."""
    runs = runs_of(results)
    live = [run for run in runs if run.is_live]
    scan_us, scan_commit_ms, scan_parcel_ms = _fit(
        [(r.rate / 1e6, r.flushes / 1e3, r.flushes * r.shards / 1e3) for r in runs], [r.thread("scan") for r in runs])
    wait_commit_ms, wait_parcel_ms = _fit(
        [(r.flushes / 1e3, r.flushes * r.shards / 1e3) for r in runs], [r.thread("scan-committer") for r in runs])
    client_us, client_commit_ms = _fit(
        [(r.rate / 1e6, (r.flushes + r.commits) / 1e3) for r in runs], [r.thread("rdk") for r in runs])
    judge_commit_ms, judge_parcel_ms, event_ms = _fit(
        [(r.commits / 1e3, r.flushes * r.shards / 1e3, r.events / 1e3) for r in runs], [r.judging() for r in runs])
    # With few commits for many spans; what live runs take beyond that is for commits and what they write.
    broker_us = median(r.said["broker_us_per_span"] for r in runs if not r.is_live)
    broker_commit_ms, broker_offset_ms = _fit(
        [((r.flushes + r.commits) / 1e3, r.offsets / 1e3) for r in live],
        [r.said["broker_cores"] - r.rate * broker_us / 1e6 for r in live])
    row_bytes, parcel_bytes, mark_bytes = _fit(
        [(r.exchanged_rows(), r.flushes * r.shards, r.shards * r.shards) for r in live],
        [r.said["bytes_per_s"]["shuffle"] for r in live])
    state_row_bytes, manifest_bytes = _fit(
        [(r.logged_rows(), r.shards * r.commits / r.instances) for r in live],
        [r.said["bytes_per_s"]["state"] - r.shards * r.commits / r.instances * r.shards * mark_bytes for r in live])
    state_offsets = median(r.said["offsets_per_s"]["state"] / (r.shards * r.commits / r.instances) for r in live)
    names = ("scan_us", "scan_commit_ms", "scan_parcel_ms", "wait_commit_ms", "wait_parcel_ms", "client_us",
             "client_commit_ms", "judge_commit_ms", "judge_parcel_ms", "event_ms",
             "broker_us", "broker_commit_ms", "broker_offset_ms", "row_bytes", "parcel_bytes", "mark_bytes",
             "state_row_bytes", "manifest_bytes", "state_offsets")
    here = locals()
    return {name: here[name] for name in names} | {
        "scan_commits": median(r.flushes / r.instances for r in live),
        "judge_commits": median(r.commits / r.instances for r in live),
        "event_bytes": median(sum(r.said["bytes_per_s"][t] for t in ("enforcement", "directives")) / r.events
                              for r in live),
    }


def _fit(factors, measured):
    """Least squares of relative errors; what would be below zero is zero."""
    factors, measured = np.array(factors, dtype=float), np.array(measured, dtype=float)
    kept = list(range(factors.shape[1]))
    while True:
        scaled = factors[:, kept] / measured[:, None]
        values = np.linalg.lstsq(scaled, np.ones(len(measured)), rcond=None)[0]
        if values.min() >= 0:
            break
        kept.pop(int(values.argmin()))
    found = np.zeros(factors.shape[1])
    found[kept] = values
    return found.tolist()


def compared(results, c):
    """Markdown: of each kind of run the medians measured, and what the model makes of them."""
    by_kind = defaultdict(list)
    for run in runs_of(results):
        by_kind[round(run.rate, -3) if run.is_live else 0, run.shards, run.instances].append(run)
    yield model.row("runs", "shards", "instances", "cores of lictor", "exchange, kB/s", "state, kB/s", "broker, cores")
    yield model.row(*["---"] * 7)
    for (rate, shards, instances), runs in sorted(by_kind.items()):
        kind = f"live, {rate:,.0f} spans/s" if rate else "backlog"
        yield model.row(f"{kind} ({len(runs)})", shards, instances, *(_cell(runs, c, *pair) for pair in _PAIRS))


def _cores(r, c):
    return (model.scan_cores(c, r.rate, r.flushes, r.shards)
            + model.other_cores(c, r.rate, r.flushes, r.commits, r.shards)
            + model.judge_cores(c, r.flushes, r.shards, r.commits, r.events))


def _exchange(r, c):
    rows = model.exchange(c, r.draws(), GROUPS, r.flushes, r.shards, r.shards)
    return (rows + r.marks() * c["row_bytes"]) / 1e3 if r.is_live else None


def _state(r, c):
    times = r.shards * r.commits / r.instances
    head = c["manifest_bytes"] + r.shards * c["mark_bytes"]
    return (r.logged_rows() * c["state_row_bytes"] + times * head) / 1e3 if r.is_live else None


_PAIRS = (
    (_cores, lambda r: sum(r.said["cores"]), "{:.2f}"),
    (_exchange, lambda r: r.said["bytes_per_s"]["shuffle"] / 1e3, "{:,.0f}"),
    (_state, lambda r: r.said["bytes_per_s"]["state"] / 1e3, "{:,.0f}"),
    (lambda r, c: model.broker_cores(c, r.rate, r.flushes + r.commits, r.offsets),
     lambda r: r.said["broker_cores"], "{:.2f}"),
)


def _cell(runs, c, predicted, measured, form):
    if predicted(runs[0], c) is None:
        return "–"
    say, find = (form.format(median(values)) for values in (
        [predicted(r, c) for r in runs], [measured(r) for r in runs]))
    return f"{say} : {find}"
