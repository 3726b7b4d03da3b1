"""The load: GenAI spans of forty teams as OTLP protobuf, the same for the same seed, and the answers they must lead to.

Costs are whole multiples of 2^-20 USD, so that sums are exact in whatever order they are added up. All spans of a team
lie in one partition, so that everybody sees a team's budget crossed by the same record.
"""

import os
import struct
from dataclasses import dataclass

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PARTITIONS = int(os.environ.get("LICTOR_PEERS_PARTITIONS", "4"))
TEAMS = [f"team-{i:02}" for i in range(int(os.environ.get("LICTOR_PEERS_TEAMS", "40")))]
MODELS = ["gpt-4o", "gpt-4o-mini", "o3", "claude-sonnet-4", "claude-haiku-4", "gemini-2.5-pro", "mistral-large",
          "llama-4"]
PROVIDERS = ["openai", "openai", "openai", "anthropic", "anthropic", "gcp.gemini", "mistral_ai", "meta"]
# The model of marks: spans of teams of their own that cross the budget at once, and so tell how far an engine is.
MARK_MODEL = "mark"
MARK_COST_USD = 128.0
BUDGET_USD = 50.0
COST_UNIT_USD = 2.0**-20

SPANS_PER_RECORD = 50
SPANS_PER_S = 1_000  # of event time
SPANS_PER_MARK = 5_000  # of a partition
# A quarter of an hour before midnight (UTC), so that budgets of two days are asked for.
START_MS = 1_772_408_700_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
HOP_MS = 5 * MINUTE_MS


def _any(value):
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any(v) for v in value]))
    return AnyValue(string_value=value)


def _attributes(values):
    return [KeyValue(key=key, value=_any(value)) for key, value in values.items()]


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number, payload):
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


class SpanTemplate:
    """An encoded span, and where in it the things stand that differ from span to span."""

    _START, _END, _COST, _TRACE = 0x1F2E3D4C5B6A7988, 0x1A2B3C4D5E6F7081, 1.2345678912345e-9, b"trace-id-of-span"

    def __init__(self, team, model, provider):
        attributes = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model,
            "gen_ai.response.model": f"{model}-2026-02-01", "gen_ai.response.id": "chatcmpl-9f31c27ab04e4d5c8a6e",
            "gen_ai.response.finish_reasons": ["stop"], "gen_ai.request.temperature": 0.2, "gen_ai.request.top_p": 1.0,
            "gen_ai.request.max_tokens": 4096, "gen_ai.usage.input_tokens": 1523, "gen_ai.usage.output_tokens": 311,
            "gen_ai.conversation.id": "conv-5d1f0c6e4b", "server.address": "gateway.internal", "server.port": 443,
            "genops.team": team, "genops.project": f"{team}-assistant", "genops.customer_id": "customer-00417",
            "genops.environment": "production", "genops.feature": "answer", "genops.cost.currency": "USD",
            "session.id": "session-7f3a91", "http.response.status_code": 200,
            "network.protocol.version": "2", "thread.id": 17, "genops.cost.total": self._COST,
        }
        span = Span(
            trace_id=self._TRACE, span_id=b"span-idx", parent_span_id=b"parent-i", name=f"chat {model}",
            kind=Span.SPAN_KIND_CLIENT, start_time_unix_nano=self._START, end_time_unix_nano=self._END,
            attributes=_attributes(attributes))
        self.payload = bytearray(_field(2, span.SerializeToString()))
        places = (self._TRACE, self._START.to_bytes(8, "little"), self._END.to_bytes(8, "little"),
                  struct.pack("<d", self._COST))
        self._at = [self.payload.index(place) for place in places]
        assert all(self.payload.count(place) == 1 for place in places)

    def write(self, end_ms, latency_ms, cost_usd, number):
        """The span as bytes, framed as the field of ScopeSpans that it is."""
        payload, (trace, start, end, cost) = self.payload, self._at
        struct.pack_into("<QQ", payload, trace, number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF | 1, number)
        struct.pack_into("<Q", payload, start, (end_ms - latency_ms) * 1_000_000)
        struct.pack_into("<Q", payload, end, end_ms * 1_000_000)
        struct.pack_into("<d", payload, cost, cost_usd)
        return bytes(payload)


class RecordWriter:
    """Encodes what a collector would send: the spans of one service in one record."""

    def __init__(self):
        self._templates, self._heads = {}, {}

    def write(self, team, spans):
        """`spans`: (model, end in ms, latency in ms, cost in USD, number)."""
        body = b"".join(self._template(team, model).write(*rest) for model, *rest in spans)
        resource, scope = self._head(team)
        return _field(1, resource + _field(2, scope + body))

    def _template(self, team, model):
        key = (team, model)
        if key not in self._templates:
            provider = PROVIDERS[MODELS.index(model)] if model in MODELS else "none"
            if model == MARK_MODEL:
                return SpanTemplate(team, model, provider)
            self._templates[key] = SpanTemplate(team, model, provider)
        return self._templates[key]

    def _head(self, team):
        name = team.split(".")[0]
        if name not in self._heads:
            resource = Resource(attributes=_attributes({
                "service.name": f"{name}-gateway", "service.version": "4.11.2", "service.namespace": "ai",
                "service.instance.id": "7d9f6c5b4-x2x9q", "deployment.environment.name": "production",
                "k8s.cluster.name": "prod-eu", "k8s.namespace.name": "ai", "k8s.pod.name": "gateway-7d9f6c5b4-x2x9q",
                "k8s.node.name": "node-17", "cloud.provider": "aws", "cloud.region": "eu-central-1",
                "telemetry.sdk.name": "opentelemetry", "telemetry.sdk.language": "python",
                "telemetry.sdk.version": "1.38.0"}))
            scope = InstrumentationScope(name="gateway.instrumentation", version="0.59b0")
            self._heads[name] = (_field(1, resource.SerializeToString()), _field(1, scope.SerializeToString()))
        return self._heads[name]


@dataclass
class Load:
    """Spans in columns; `team` of a mark is `len(TEAMS)` plus its number, its `model` is `len(MODELS)`."""

    team: np.ndarray
    model: np.ndarray
    end_ms: np.ndarray
    latency_ms: np.ndarray
    cost_units: np.ndarray
    record: np.ndarray
    # By record: its partition.
    partition: np.ndarray
    # By mark, in the order of their numbers: its row, its partition, and how many spans the partition has up to it.
    mark_row: list
    mark_partition: list
    mark_spans: list

    def team_name(self, team):
        return TEAMS[team] if team < len(TEAMS) else mark_name(team - len(TEAMS))

    def model_name(self, model):
        return MODELS[model] if model < len(MODELS) else MARK_MODEL


def mark_name(number):
    return f"mark.{number}"


def mark_number(team):
    """The number of the mark that a team is, or None."""
    return int(team[5:]) if team.startswith("mark.") else None


def make_load(spans, seed=1):
    """`spans` spans in records of `SPANS_PER_RECORD`, and marks in between."""
    random = np.random.default_rng(seed)
    records = spans // SPANS_PER_RECORD
    record_team = random.integers(0, len(TEAMS), records)
    team = np.repeat(record_team, SPANS_PER_RECORD)
    model = random.choice(len(MODELS), len(team), p=[.25, .25, .05, .15, .1, .1, .05, .05])
    begins_ms = np.arange(records, dtype=np.int64) * (SPANS_PER_RECORD * 1_000 // SPANS_PER_S)
    end_ms = START_MS + np.repeat(begins_ms, SPANS_PER_RECORD) + np.tile(np.arange(SPANS_PER_RECORD), records)
    latency_ms = np.clip(random.lognormal(6.5 + 0.15 * model, 0.6), 5, 120_000).astype(np.int64)
    cost_units = (random.gamma(2.0, 5_000, len(team)) * (0.2 + team / 20)).astype(np.int64) + 1
    return _with_marks(record_team, team, model, end_ms, latency_ms, cost_units)


def _with_marks(record_team, team, model, end_ms, latency_ms, cost_units):
    """A mark is a record of its own behind every `SPANS_PER_MARK` spans of a partition, its first and last record."""
    owners = record_team % PARTITIONS
    marks, seen = [], [0] * PARTITIONS
    last = {p: int(np.flatnonzero(owners == p)[-1]) for p in range(PARTITIONS)}
    for record, partition in enumerate(owners.tolist()):
        before = seen[partition]
        seen[partition] += SPANS_PER_RECORD
        crosses = before // SPANS_PER_MARK != seen[partition] // SPANS_PER_MARK
        if before == 0 or crosses or record == last[partition]:
            marks.append((record, partition, seen[partition]))
    at = np.array([(record + 1) * SPANS_PER_RECORD for record, _, _ in marks])
    numbers = len(TEAMS) + np.arange(len(marks))
    place = np.array([record + 1 for record, _, _ in marks])
    record = np.insert(np.repeat(np.arange(len(owners)), SPANS_PER_RECORD), at, -1)
    record = np.cumsum(np.concatenate(([0], (record[1:] != record[:-1]) | (record[1:] == -1)))).astype(np.int64)
    return Load(
        team=np.insert(team, at, numbers), model=np.insert(model, at, len(MODELS)),
        end_ms=np.insert(end_ms, at, end_ms[at - 1]), latency_ms=np.insert(latency_ms, at, 100),
        cost_units=np.insert(cost_units, at, int(MARK_COST_USD / COST_UNIT_USD)), record=record,
        partition=np.insert(owners, place, [p for _, p, _ in marks]),
        mark_row=(at + np.arange(len(marks))).tolist(), mark_partition=[p for _, p, _ in marks],
        mark_spans=[s for _, _, s in marks])


def records_of(load):
    """Partition, key, timestamp in ms and payload of each record."""
    writer = RecordWriter()
    starts = np.flatnonzero(np.concatenate(([True], load.record[1:] != load.record[:-1]))).tolist() + [len(load.team)]
    for number, (start, end) in enumerate(zip(starts, starts[1:])):
        team = load.team_name(int(load.team[start]))
        rows = slice(start, end)
        spans = [
            (load.model_name(model), end_ms, latency_ms, cost * COST_UNIT_USD, start + i + 1)
            for i, (model, end_ms, latency_ms, cost) in enumerate(zip(
                load.model[rows].tolist(), load.end_ms[rows].tolist(), load.latency_ms[rows].tolist(),
                load.cost_units[rows].tolist()))
        ]
        yield int(load.partition[number]), team, spans[-1][1], writer.write(team, spans)


def live_record(writer, random, now_ms, number):
    """A record of now, for the measurement of latency: key and payload. Its costs cross no budget."""
    team = TEAMS[number % len(TEAMS)]
    spans = [
        (MODELS[(number + i) % len(MODELS)], now_ms, random.randrange(100, 5_000), 1e-6, number * SPANS_PER_RECORD + i)
        for i in range(SPANS_PER_RECORD)
    ]
    return team, writer.write(team, spans)


def live_mark(writer, now_ms, number):
    """A mark whose team is named after `number`: key and payload."""
    team = mark_name(number)
    return team, writer.write(team, [(MARK_MODEL, now_ms, 100, MARK_COST_USD, os.getpid())])
