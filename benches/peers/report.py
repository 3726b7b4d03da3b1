"""Results as Markdown: the median of the runs and, in parentheses, the least and the greatest."""

from statistics import median

COLUMNS = (
    ("spans/s and core", "spans_per_core_s", "{:,.0f}"),
    ("cores busy", "cores_busy", "{:.2f}"),
    ("alert p50, ms", "p50_ms", "{:.0f}"),
    ("alert p99, ms", "p99_ms", "{:.0f}"),
    ("recovery, s", "recovery_s", "{:.1f}"),
    ("memory, MiB", "peak_rss_mib", "{:.0f}"),
)


def tables(results):
    by_engine = {}
    for result in results:
        by_engine.setdefault(result["label"], []).append(result)
    return "\n".join((*_figures(by_engine), "", *_answers(by_engine)))


def _figures(by_engine):
    titles = ["engine", "runs", *(title for title, _, _ in COLUMNS)]
    yield _row(titles)
    yield _row(["---"] * len(titles))
    for label, runs in by_engine.items():
        done = [run for run in runs if "failed" not in run]
        yield _row([label, f"{len(done)}", *(_spread(done, key, form) for _, key, form in COLUMNS)])


def _spread(runs, key, form):
    values = sorted(run[key] for run in runs if run.get(key) is not None)
    if not values:
        return "–"
    middle, least, most = (form.format(value) for value in (median(values), values[0], values[-1]))
    return middle if len(values) == 1 else f"{middle} ({least}–{most})"


def _answers(by_engine):
    yield _row(["engine", "answers checked", "wrong", "alerts lost after kill -9", "said twice", "runs that failed"])
    yield _row(["---"] * 6)
    for label, runs in by_engine.items():
        done = [run for run in runs if "failed" not in run]
        checked = sum(sum(run["checked"].values()) for run in done)
        kinds = sorted({kind for run in done for kind in run["wrong"]})
        wrong = "; ".join(f"{sum(run['wrong'].get(kind, 0) for run in done):,} {kind}" for kind in kinds)
        lost, twice = (sum(run[key] for run in done) for key in ("lost", "twice"))
        yield _row([label, f"{checked:,}", wrong or "none", f"{lost}", f"{twice}", f"{len(runs) - len(done)}"])


def _row(cells):
    return f"| {' | '.join(cells)} |"
