"""What a number of spans per second takes: the arithmetic of docs/scale.md, from the coefficients beside this file."""

from dataclasses import dataclass
from math import ceil, exp

# More than anybody starts.
INSTANCES_MAX = 5_000
SIZES = (1_000_000, 10_000_000)


def distinct(draws, groups):
    """How many of so many groups are hit at least once by so many draws."""
    return groups * (1 - exp(-draws / groups))


def exchange(c, draws, groups, flushes, shards, partitions):
    """Bytes per second on the shuffle topic, if `flushes` per second share `draws` rows before they are summed up."""
    rows = flushes * distinct(draws / flushes, groups)
    return rows * c["row_bytes"] + flushes * shards * c["parcel_bytes"] + partitions * shards * c["mark_bytes"]


def state(c, changes, groups, commits, shards, partitions):
    """Bytes per second on the state topic, if each shard commits so often per second and so many groups change."""
    rows = shards * commits * distinct(changes / (shards * commits), groups / shards)
    head = c["manifest_bytes"] + partitions * c["mark_bytes"]
    return 2 * rows * c["state_row_bytes"] + shards * commits * head


def scan_cores(c, rate, flushes, shards):
    return rate * c["scan_us"] / 1e6 + flushes * (c["scan_commit_ms"] + shards * c["scan_parcel_ms"]) / 1e3


def other_cores(c, rate, flushes, commits, shards):
    """Of the committing thread, and of the Kafka client's own."""
    waits = flushes * (c["wait_commit_ms"] + shards * c["wait_parcel_ms"]) / 1e3
    return waits + rate * c["client_us"] / 1e6 + (flushes + commits) * c["client_commit_ms"] / 1e3


def judge_cores(c, flushes, shards, commits, events):
    """`commits` per second of all instances together."""
    parcels_ms, commits_ms = flushes * shards * c["judge_parcel_ms"], commits * c["judge_commit_ms"]
    return (parcels_ms + commits_ms + events * c["event_ms"]) / 1e3


def broker_cores(c, rate, commits, offsets):
    """On one node that replicates nothing."""
    return rate * c["broker_us"] / 1e6 + (commits * c["broker_commit_ms"] + offsets * c["broker_offset_ms"]) / 1e3


@dataclass
class Need:
    """What a deployment of so many spans per second takes."""

    rate: float
    groups: float
    events: float
    instances: int
    shards: int
    scan: float
    judge: float
    other: float
    flushes: float
    exchange: float
    state: float

    def cores(self):
        return self.scan + self.judge + self.other


def need(c, rate):
    """With as few instances as leave the thread that scans and the one that judges idle enough; none if none do."""
    groups, events = rate * c["groups_per_rate"], rate / c["spans_per_event"]
    for instances in range(1, INSTANCES_MAX):
        shards, flushes = ceil(c["parts_per_instance"] * instances), instances * c["scan_commits"]
        commits = instances * c["judge_commits"]
        scan = scan_cores(c, rate, flushes, shards)
        judge = judge_cores(c, flushes, shards, commits, events)
        if max(scan, judge) <= instances * c["utilisation"]:
            other = other_cores(c, rate, flushes, commits, shards)
            draws = rate * c["rows_per_span"]
            sums = exchange(c, draws, groups, flushes, shards, shards)
            changes = flushes * distinct(draws / flushes, groups)
            logged = state(c, changes, groups, c["judge_commits"], shards, shards)
            return Need(rate, groups, events, instances, shards, scan, judge, other, flushes, sums, logged)
    return None


def tables(said):
    """`said`: name to value, unit, source."""
    c = {name: value for name, (value, _, _) in said.items()}
    return "\n".join((*_coefficients(said), "", *_needs(c)))


def _coefficients(said):
    yield row("coefficient", "value", "unit", "from")
    yield row(*["---"] * 4)
    for name, (value, unit, source) in said.items():
        yield row(f"`{name}`", f"{value:,.4g}" if value < 1000 else f"{value:,.0f}", unit, source)


def _needs(c):
    """As it is, and with epochs of a quarter of a second: four commits per second, whatever is urgent."""
    calm = c | {"scan_commits": 4, "judge_commits": 4}
    cases = [(each, rate, need(each, rate)) for rate in SIZES for each in (c, calm)]
    yield row("", *(f"{rate / 1e6:,.0f} M spans/s, {each['scan_commits']:,.0f} commits/s" for each, rate, _ in cases))
    yield row("---", *["---"] * len(cases))
    for title, say in _LINES:
        yield row(title, *(say(each, n) if n else "no number does" for each, _, n in cases))


def produced(c, n):
    """Bytes per second that brokers are handed, each once: telemetry, exchange, state, events."""
    return n.rate * c["span_bytes"] + n.exchange + n.state + n.events * c["event_bytes"]


def offsets(c, n):
    """Records and markers per second on the internal topics: a transaction marks each partition that it wrote to."""
    return 2 * n.flushes * n.shards + n.shards * c["judge_commits"] * c["state_offsets"]


def memory(c, n):
    return c["base_mib"] / 1024 + n.groups * c["group_bytes"] / n.instances / 2**30


_MB = lambda bytes_per_s: f"{bytes_per_s / 1e6:,.0f} MB/s" if bytes_per_s >= 1e6 else f"{bytes_per_s / 1e6:,.2f} MB/s"
_LINES = (
    ("groups in open windows; events/s", lambda c, n: f"{n.groups:,.0f}; {n.events:,.0f}"),
    ("instances", lambda c, n: f"{n.instances:,}"),
    ("input partitions, and shards: each", lambda c, n: f"{n.shards:,}"),
    ("cores busy: scan, judge, other threads", lambda c, n: f"{n.scan:,.1f}, {n.judge:,.1f}, {n.other:,.1f}"),
    ("cores to have", lambda c, n: f"{n.cores() / c['utilisation']:,.0f}"),
    ("memory of an instance", lambda c, n: f"{memory(c, n):,.1f} GiB"),
    ("telemetry", lambda c, n: _MB(n.rate * c["span_bytes"])),
    ("exchange (shuffle topic)", lambda c, n: _MB(n.exchange)),
    ("state topic", lambda c, n: _MB(n.state)),
    ("events and directives", lambda c, n: _MB(n.events * c["event_bytes"])),
    ("parcels/s; records and markers/s, internal topics",
     lambda c, n: f"{n.flushes * n.shards:,.0f}; {offsets(c, n):,.0f}"),
    ("brokers, in: from clients + from leaders",
     lambda c, n: f"{_MB(produced(c, n))} + {_MB((c['replicas'] - 1) * produced(c, n))}"),
    ("brokers, out: to lictor + to followers",
     lambda c, n: f"{_MB(n.rate * c['span_bytes'] + n.exchange)} + {_MB((c['replicas'] - 1) * produced(c, n))}"),
    ("brokers, cores busy without replication", lambda c, n:
     f"{broker_cores(c, n.rate, n.instances * (c['scan_commits'] + c['judge_commits']), offsets(c, n)):,.1f}"),
    ("state to restore: all; of one instance", lambda c, n:
     f"{n.groups * c['log_group_bytes'] / 2**30:,.2f} GiB; "
     f"{n.groups * c['log_group_bytes'] / 2**20 / n.instances:,.0f} MiB"),
    ("restore: one crashed instance's shards, on one other", lambda c, n:
     f"{n.groups / n.instances * c['restore_us'] / 1e6:,.2f} s"),
)


def row(*cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"
