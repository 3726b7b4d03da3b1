"""What the node of a measurement says of itself: its processor time, and how its topics' logs grow."""

import os
from collections import defaultdict
from pathlib import Path

import broker as kafka
from confluent_kafka import Consumer, TopicPartition
from instances import cpu_s

# As tests/kafka.sh has them.
HOME = Path(os.environ.get("LICTOR_KAFKA_HOME") or Path.home() / ".cache" / "lictor-kafka")


class Node:
    """The running node, which is on this machine."""

    def __init__(self, servers):
        said = dict(line.split("=", 1) for line in (HOME / "run" / f"{kafka.NODE}.env").read_text().splitlines())
        self._servers = servers
        self._pid, self._logs = int(said["KAFKA_PID"]), Path(said["KAFKA_DATA"].strip("'")) / "logs"

    def cpu_s(self):
        return cpu_s(self._pid)

    def ends(self, topic, partitions):
        """By partition, the offset behind its last record; markers of transactions have offsets, too."""
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "scale-ends"}, logger=kafka.SILENT)
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in range(partitions)]
        consumer.close()
        return ends

    def sizes(self, topic):
        """The bytes of each segment of a topic's partitions, by partition and the segment's first offset."""
        found = {}
        for file in self._logs.glob(f"{topic}-*/*.log"):
            partition = file.parent.name.removeprefix(f"{topic}-")
            if partition.isdigit():
                try:
                    found[int(partition), int(file.stem)] = file.stat().st_size
                except (FileNotFoundError, ValueError):
                    pass  # Compaction has taken it.
        return found


class Growth:
    """How many bytes were appended to topics, told from their segments: compaction shrinks only those behind."""

    def __init__(self, node, topics):
        self._node, self._before = node, {topic: node.sizes(topic) for topic in topics}
        self.bytes = {topic: defaultdict(int) for topic in topics}

    def look(self):
        """Must be called more often than a segment is rolled and compacted."""
        for topic, before in self._before.items():
            sizes = self._node.sizes(topic)
            newest = {partition: max(first for p, first in before if p == partition) for partition, _ in before}
            for (partition, first), size in sizes.items():
                if first >= newest.get(partition, 0):
                    self.bytes[topic][partition] += max(0, size - before.get((partition, first), 0))
            self._before[topic] = sizes

    def of(self, topic):
        return sum(self.bytes[topic].values())
