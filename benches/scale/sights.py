"""What can be counted of instances and topics at an instant, and what happened between two of them."""

import time

import telemetry
from instances import total
from node import Growth

INTERNAL = ("shuffle", "state")
RULES = ("spend", "budget", "latency")
TOPICS = (*INTERNAL, "enforcement", "directives")


def is_all_served(metrics):
    """Whether every instance has its part, and all together everything."""
    parts = [[total(m, "lictor_partitions", f'"{stage}"') for m in metrics] for stage in ("scan", "judge")]
    return all(sum(part) == telemetry.PARTITIONS and min(part) > 0 for part in parts)


class Sights:
    """Looks at the instances of one place from here on."""

    def __init__(self, node, place, instances):
        self._node, self._place, self._instances = node, place, instances
        self._growth = Growth(node, [f"{place.name}.{topic}" for topic in TOPICS])
        self.metrics = []

    def look(self):
        """To be called some times per second: logs are compacted behind our back."""
        self._growth.look()

    def take(self, spans):
        """Counters as they are now; `spans` are read for certain."""
        self.look()
        self.metrics = [instance.metrics() for instance in self._instances]
        ends = {topic: sum(self._node.ends(f"{self._place.name}.{topic}", telemetry.PARTITIONS)) for topic in INTERNAL}
        of_all = lambda name, label="": [total(m, name, label) for m in self.metrics]
        return {
            "at": time.monotonic(), "spans": spans, "broker_cpu_s": self._node.cpu_s(),
            "rows": of_all("lictor_rows_total", '"used"'), "cpu_s": [i.cpu_s() for i in self._instances],
            "threads": [i.threads_cpu_s() for i in self._instances],
            "throttled_s": [i.throttled_s() for i in self._instances],
            "scan_commits": of_all("lictor_commit_duration_seconds_count", '"scan"'),
            "judge_commits": of_all("lictor_commit_duration_seconds_count", '"judge"'),
            "events": of_all("lictor_events_total"), "ends": ends,
            "bytes": {topic: self._growth.of(f"{self._place.name}.{topic}") for topic in TOPICS},
        }

    def fullest_shard(self):
        """Bytes of the shard that got most of the exchange, in those of an average one."""
        by_shard = self._growth.bytes[f"{self._place.name}.shuffle"]
        return max(by_shard.values(), default=0) * telemetry.PARTITIONS / max(1, sum(by_shard.values()))


def between(before, after, sights):
    """Rates from one sight to the other, and what the instances said at the latter."""
    wall_s = after["at"] - before["at"]
    each = lambda key: [b - a for a, b in zip(before[key], after[key])]
    of_topic = lambda key: {topic: after[key][topic] - n for topic, n in before[key].items()}
    rows, cpu_s = each("rows"), each("cpu_s")
    broker_cpu_s, appended = after["broker_cpu_s"] - before["broker_cpu_s"], of_topic("bytes")
    threads = [{name: s - a.get(name, 0) for name, s in b.items()}
               for a, b in zip(before["threads"], after["threads"])]
    names = sorted({name for of_instance in threads for name in of_instance})
    of_metrics = lambda name, label="": [total(m, name, label) for m in sights.metrics]
    return {
        "of_partitions": telemetry.PARTITIONS, "measured_s": wall_s,
        "spans_per_s": (after["spans"] - before["spans"]) / wall_s,
        "rows_per_s": [n / wall_s for n in rows], "cores": [s / wall_s for s in cpu_s],
        "throttled": [s / wall_s for s in each("throttled_s")],
        "thread_us_per_span": {name: sum(t.get(name, 0) for t in threads) / sum(rows) * 1e6 for name in names},
        "broker_cores": broker_cpu_s / wall_s, "broker_us_per_span": broker_cpu_s / sum(rows) * 1e6,
        "scan_commits_per_s": sum(each("scan_commits")) / wall_s,
        "judge_commits_per_s": sum(each("judge_commits")) / wall_s,
        "events_per_s": sum(each("events")) / wall_s,
        "offsets_per_s": {topic: n / wall_s for topic, n in of_topic("ends").items()},
        "bytes_per_s": {topic: n / wall_s for topic, n in appended.items()},
        "bytes_per_span": {topic: n / sum(rows) for topic, n in appended.items()},
        "partitions": of_metrics("lictor_partitions", '"scan"'), "shards": of_metrics("lictor_partitions", '"judge"'),
        "groups": of_metrics("lictor_groups"),
        "groups_of": {rule: sum(of_metrics("lictor_groups", f'"{rule}"')) for rule in RULES},
        "state_bytes_of": {rule: sum(of_metrics("lictor_state_bytes", f'"{rule}"')) for rule in RULES},
        "fullest_shard": sights.fullest_shard(),
    }
