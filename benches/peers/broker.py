"""The Kafka node of a measurement, its topics, and what engines write to them."""

import json
import logging
import os
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import telemetry

SCRIPT = Path(__file__).resolve().parents[2] / "tests" / "kafka.sh"
NODE = os.environ.get("LICTOR_PEERS_NODE", "peers")
START_LIMIT_S = 120
# Clients outlive the node by a moment, and need not say that it is gone.
SILENT = logging.getLogger("peers.kafka")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


def start(core):
    """Starts a node of our own on one core (or finds it running) and returns its address."""
    command = ["taskset", "-c", str(core), SCRIPT, "start"]
    environment = {**os.environ, "LICTOR_KAFKA_NAME": NODE}
    said = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=START_LIMIT_S).stdout
    return said.strip().split("=", 1)[1]


def stop():
    subprocess.run([SCRIPT, "stop"], env={**os.environ, "LICTOR_KAFKA_NAME": NODE}, check=True, timeout=START_LIMIT_S)


class Broker:
    """Topics on a cluster."""

    def __init__(self, servers):
        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers}, logger=SILENT)

    def topics(self):
        return set(self._admin.list_topics(timeout=10).topics)

    def make(self, names, partitions):
        # Event time is long past: nothing may be deleted because of its age.
        topics = [NewTopic(name, partitions, 1, config={"retention.ms": "-1"}) for name in names]
        for future in self._admin.create_topics(topics).values():
            future.result(30)

    def drop(self, prefix):
        """Deletes the topics of a run, those that the engine made itself included."""
        names = [name for name in self.topics() if name.startswith(prefix)]
        for future in self._admin.delete_topics(names).values() if names else ():
            try:
                future.result(30)
            except KafkaException:
                pass  # It has gone already.

    def producer(self):
        # A record of 50 spans has 60 kB: small batches of few records, sent at once.
        return Producer({"bootstrap.servers": self.servers, "linger.ms": 0, "batch.size": 1_000_000,
                         "queue.buffering.max.kbytes": 262_144}, logger=SILENT)

    def fill(self, topic, load):
        """Writes a load into a topic, unless the topic has it already."""
        if topic in self.topics():
            if self._count(topic) == len(load.partition):
                return
            self.drop(topic)
        self.make([topic], telemetry.PARTITIONS)
        producer, failures = self.producer(), []
        note = lambda error, _: failures.append(error) if error else None
        # A partition that the broker does not know of yet would refuse its first records.
        while len(producer.list_topics(topic, timeout=10).topics[topic].partitions) < telemetry.PARTITIONS:
            time.sleep(0.1)
        for partition, key, timestamp_ms, payload in telemetry.records_of(load):
            while True:
                try:
                    producer.produce(topic, payload, key.encode(), partition=partition, timestamp=timestamp_ms,
                                     on_delivery=note)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush()
        count = self._count(topic)
        if failures or count != len(load.partition):
            # Answers would be held against what was never there.
            raise RuntimeError(f"{topic} has {count} records of {len(load.partition)}: {failures[:3]}")

    def _count(self, topic):
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "peers-count"})
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
                for number in range(telemetry.PARTITIONS)]
        consumer.close()
        return sum(ends)

    def follow(self, topics):
        return Follower(self.servers, topics)


class Follower:
    """Reads committed records of topics of one partition from their beginning."""

    def __init__(self, servers, topics):
        self._consumer = Consumer({
            "bootstrap.servers": servers, "group.id": f"peers-follower-{os.getpid()}", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 100, "fetch.min.bytes": 1})
        self._consumer.assign([TopicPartition(topic, 0, 0) for topic in topics])

    def poll(self, timeout_s):
        """Topic and JSON value of the next record, or None."""
        message = self._consumer.poll(timeout_s)
        if message is None or message.error() or not message.value():
            return None
        return message.topic(), json.loads(message.value())

    def close(self):
        self._consumer.close()
