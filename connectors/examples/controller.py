#!/usr/bin/env python3
"""A gateway that knows which calls may go on, to copy: Python 3.11, `pip install confluent-kafka`.

It reads the compacted directives topic to its end, follows it, and decides about a call from memory. For a call that it
stops it writes a span with the event `genops.policy.evaluated`, as GenOps section 8.1 has it: a directive is about many
units of work, the decision about each is the gateway's to record. No OpenTelemetry SDK is needed for that.

    ./controller.py localhost:9092 <<< '{"team": "docs", "request_model": "gpt-4o"}'

A call is a line of JSON, canonical column to value; what comes back is a line, too: `allow`, or what stops the call.
"""

import json
import secrets
import sys
import time
from datetime import datetime, timezone

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

WAIT_S = 10

# The mildest first.
STRENGTH = ["allow", "notify", "warn", "throttle", "block"]

# The attributes by which telemetry says what a call says by column; see `lictor schema spans`.
ATTRIBUTES = {
    "team": "genops.team",
    "project": "genops.project",
    "environment": "genops.environment",
    "customer_id": "genops.customer_id",
    "session_id": "genops.session_id",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
}


class Directives:
    """Everything that holds, by directive."""

    def __init__(self, brokers, topic):
        self.held = {}
        # Every gateway needs every directive: it reads all partitions from the beginning, its group is never joined.
        self.consumer = Consumer({
            "bootstrap.servers": brokers,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        })
        self.unread = set(self.consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions)
        if not self.unread:
            raise LookupError(f"there is no topic {topic}")
        self.consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in self.unread])
        while self.unread:
            if not self.poll(WAIT_S):
                raise TimeoutError("the brokers do not answer")

    def follow(self):
        """Takes over what has come since."""
        while self.poll(0):
            pass

    def poll(self, wait_s):
        """Takes over one record; whether there was something."""
        message = self.consumer.poll(wait_s)
        if message is None:
            return False
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                self.unread.discard(message.partition())
            elif message.error().fatal():
                raise KafkaException(message.error())
            else:
                # A broker that restarts, say: the client goes on by itself, and what is held holds until its end.
                print(f"controller: {message.error()}", file=sys.stderr)
        elif message.value() is None:
            self.held.pop(message.key(), None)
        else:
            try:
                self.held[message.key()] = json.loads(message.value())["data"]
            except (ValueError, TypeError, KeyError) as error:
                print(f"offset {message.offset()}: no directive: {error!r}", file=sys.stderr)
        return True

    def strongest(self, call, now):
        """The strongest directive about a call; those in the mode `shadow` are only to be looked at."""
        found = [
            directive for directive in self.held.values()
            if directive["mode"] == "enforce"
            and datetime.fromisoformat(directive["valid_until"]) > now
            and all(call.get(column) == value for column, value in directive["selector"]["match"].items())
        ]
        return max(found, key=strength, default=None)


def strength(directive):
    """The place of its action in STRENGTH; one that came after us stops nobody and counts as `warn`."""
    action = directive["action"]
    return STRENGTH.index(action if action in STRENGTH else "warn")


def stopped_call(call, directive, now_ns):
    """The unit of work that does not go on, as OTLP: its attribution, and the decision as attributes and as an event."""

    def attributes(said):
        return [{"key": key, "value": {"stringValue": text}} for key, text in said.items()]

    attribution = {key: call[column] for column, key in ATTRIBUTES.items() if isinstance(call.get(column), str)}
    decision = {
        "genops.policy.result": directive["result"],
        "genops.policy.reason_code": directive["reason_code"],
        "genops.policy.name": directive["rule"]["name"],
        "genops.policy.reason": directive.get("message", ""),
    }
    operation = {
        "genops.operation.name": "chat",
        "genops.operation.type": "inference",
        "genops.spec.version": directive["spec_version"],
    }
    event = {"timeUnixNano": str(now_ns), "name": "genops.policy.evaluated", "attributes": attributes(decision)}
    span = {
        "traceId": secrets.token_hex(16), "spanId": secrets.token_hex(8), "name": "chat", "kind": 3,
        "startTimeUnixNano": str(now_ns), "endTimeUnixNano": str(now_ns),
        "attributes": attributes(attribution | decision | operation), "events": [event], "status": {"code": 2},
    }
    resource = {"attributes": attributes({"service.name": "gateway"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


def main(brokers, directives_topic="lictor.directives", spans_topic="otlp_spans"):
    directives, producer = Directives(brokers, directives_topic), Producer({"bootstrap.servers": brokers})
    for line in sys.stdin:
        call = json.loads(line)
        directives.follow()
        directive = directives.strongest(call, datetime.now(timezone.utc))
        if directive is None or directive["action"] not in ("throttle", "block"):
            print("allow", flush=True)
            continue
        why = f'{directive["reason_code"]} {directive["rule"]["name"]}: {directive.get("message", "")}'
        print(directive["action"], why, flush=True)
        producer.produce(spans_topic, json.dumps(stopped_call(call, directive, time.time_ns())))
        producer.poll(0)
    producer.flush(WAIT_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
