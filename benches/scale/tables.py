"""Results as Markdown: the median of the runs and, in parentheses, the least and the greatest."""

from collections import defaultdict
from statistics import median


def tables(results):
    done = [result for result in results if "failed" not in result]
    by_count = defaultdict(list)
    for result in done:
        if result["kind"] == "backlog":
            by_count[result["instances"]].append(result)
    joins = [result for result in done if result["kind"] == "joins"]
    failed = len(results) - len(done)
    parts = (_rates(by_count), _evenness(by_count), _exchange(by_count), _answers(by_count), _phases(joins),
             [f"Runs that failed: {failed}."])
    return "\n".join(line for part in parts for line in (*part, ""))


def _rates(by_count):
    yield from _head("instances", "runs", "spans/s", "of one", "spans per second of CPU", "cores busy, each",
                     "broker, cores", "memory, each, MiB")
    one = median(_rate(run) for run in by_count[1]) if by_count.get(1) else None
    for count, runs in sorted(by_count.items()):
        rates = [_rate(run) for run in runs]
        yield _row(count, len(runs), spread(rates, "{:,.0f}"), f"{median(rates) / one:.2f}" if one else "–",
                   spread([_rate(run) / sum(run["cores"]) for run in runs], "{:,.0f}"),
                   spread([cores for run in runs for cores in run["cores"]], "{:.2f}"),
                   spread([run["broker_cores"] for run in runs], "{:.2f}"),
                   spread([mib for run in runs for mib in run["peak_rss_mib"]], "{:,.0f}"))


def _rate(run):
    return sum(run["rows_per_s"])


def _evenness(by_count):
    yield from _head("instances", "spans/s by marks", "slowest and fastest instance, spans/s", "partitions", "shards",
                     "groups", "fullest shard, of the mean")
    for count, runs in sorted(by_count.items()):
        yield _row(count, spread([run["spans_per_s"] for run in runs], "{:,.0f}"),
                   f"{median(min(run['rows_per_s']) for run in runs):,.0f}, "
                   f"{median(max(run['rows_per_s']) for run in runs):,.0f}",
                   _parts(runs, "partitions"), _parts(runs, "shards"), _parts(runs, "groups"),
                   spread([run["fullest_shard"] for run in runs], "{:.2f}"))


def _parts(runs, key):
    """The parts of each instance in the most usual run."""
    parts = [" + ".join(f"{part:,.0f}" for part in sorted(run[key])) for run in runs]
    return max(parts, key=parts.count)


def _exchange(by_count):
    yield from _head("instances", "shuffle, bytes/span", "state, bytes/span", "events, bytes/span",
                     "directives, bytes/span", "commits/s, scan", "commits/s, judge", "shuffle, offsets/s",
                     "state, offsets/s", "broker, µs/span")
    for count, runs in sorted(by_count.items()):
        of_topic = [spread([run["bytes_per_span"][topic] for run in runs], "{:.1f}")
                    for topic in ("shuffle", "state", "enforcement", "directives")]
        yield _row(count, *of_topic, spread([run["scan_commits_per_s"] for run in runs], "{:.1f}"),
                   spread([run["judge_commits_per_s"] for run in runs], "{:.1f}"),
                   spread([run["offsets_per_s"]["shuffle"] for run in runs], "{:,.0f}"),
                   spread([run["offsets_per_s"]["state"] for run in runs], "{:,.0f}"),
                   spread([run["broker_us_per_span"] for run in runs], "{:.2f}"))


def _answers(by_count):
    yield from _head("instances", "answers checked", "wrong")
    for count, runs in sorted(by_count.items()):
        kinds = sorted({kind for run in runs for kind in run["wrong"]})
        wrong = "; ".join(f"{sum(run['wrong'].get(kind, 0) for run in runs):,} {kind}" for kind in kinds)
        yield _row(count, f"{sum(sum(run['checked'].values()) for run in runs):,}", wrong or "none")


def _phases(joins):
    yield from _head("what happens", "serves after, s", "alert p50, ms", "p99, ms", "longest, ms", "no alert for, ms")
    by_phase = defaultdict(list)
    for run in joins:
        for phase in run["phases"]:
            of_load = f"{run['live']:,} spans/s, {phase.get('of_partitions', 12)} partitions"
            by_phase[f"{phase['phase']} ({of_load})"].append(phase)
    for name, phases in by_phase.items():
        keys = (("served_s", "{:.1f}"), ("p50_ms", "{:.0f}"), ("p99_ms", "{:.0f}"), ("max_ms", "{:.0f}"),
                ("gap_ms", "{:.0f}"))
        yield _row(name, *(spread([p[key] for p in phases if p[key] is not None], form) for key, form in keys))
    lost, twice = (sum(run[key] for run in joins) for key in ("lost", "twice"))
    yield ""
    yield f"Runs: {len(joins)}. Alerts lost: {lost}, twice: {twice}."


def spread(values, form):
    if not values:
        return "–"
    middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def _head(*titles):
    yield _row(*titles)
    yield _row(*["---"] * len(titles))


def _row(*cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"
