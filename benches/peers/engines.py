"""The engines side by side: how each is fetched, configured, started, and what its output means.

Nothing of a peer lies in this repository: jars and wheels come from Maven Central and PyPI when `fetch` asks for them.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import telemetry

HERE = Path(__file__).resolve().parent
FETCH_LIMIT_S = 900
HEAP = "2g"


@dataclass(frozen=True)
class Place:
    """Where one run of an engine happens: its name, which its topics begin with, its folder, brokers, input topic."""

    name: str
    folder: Path
    servers: str
    input: str


class Answer(NamedTuple):
    """One answer of an engine."""

    question: str
    key: str
    start_ms: int
    value: float
    # What no other answer shares.
    identity: Any
    # Whether an engine may say again what it has said about this window.
    may_repeat: bool = False


class Engine:
    """What all engines have in common."""

    name = ""
    label = ""
    # By how much of its value a p95 may be off.
    p95_bound = 0.0
    # How long after a window's end an engine may still wait for rows, in ms of event time.
    patience_ms = 10_000
    questions = ("spend", "alerts", "latency")

    def __init__(self, cache):
        self.cache = cache

    def fetch(self):
        """Brings what the engine needs, once."""

    def outputs(self, place):
        """The topics with the answers, made before it starts."""
        return [f"{place.name}.{question}" for question in self.questions]

    def prepare(self, place):
        """Writes what it is configured by."""

    def command(self, place, is_restart):
        """The command line that starts it."""
        raise NotImplementedError

    def answer(self, topic, value):
        """The answer that a record is; None if it is none."""
        question = topic.rsplit(".", 1)[1]
        return Answer(question, value["key"], value["start"], value["value"], (value["key"], value["start"]))


class Lictor(Engine):
    name, label = "lictor", "lictor"
    # The width of a cell of hist_log(…, 64).
    p95_bound = 2 ** (1 / 64) - 1
    delivery = "exactly_once"

    def binary(self):
        return os.environ.get("LICTOR_BINARY") or HERE.parents[1] / "target" / "release" / "lictor"

    def fetch(self):
        if not Path(self.binary()).exists():
            sys.exit(f"{self.binary()} is not there: cargo build --release, or name another by LICTOR_BINARY")

    def outputs(self, place):
        return [f"{place.name}.enforcement"]

    def prepare(self, place):
        rules = (HERE / "questions" / "lictor.sql").read_text()
        (place.folder / "rules.sql").write_text(rules.replace("{budget_usd}", str(telemetry.BUDGET_USD)))
        (place.folder / "lictor.yaml").write_text(
            f"application_id: {place.name}\ninstance_id: only\ndelivery: {self.delivery}\nrules: rules.sql\n"
            f"shards: {telemetry.PARTITIONS}\nhttp: off\n"
            f"kafka: {{bootstrap.servers: \"{place.servers}\"}}\n"
            f"topics: {{traces: [{place.input}], logs: [], metrics: [], enforcement: {place.name}.enforcement,\n"
            f"  directives: {place.name}.directives, directives_shadow: {place.name}.shadow,\n"
            f"  dead_letter: {place.name}.dead, late: {place.name}.late}}\n")

    def command(self, place, is_restart):
        return [self.binary(), "run", "-c", place.folder / "lictor.yaml"]

    def answer(self, topic, value):
        data = value["data"]
        question = {"budget": "alerts"}.get(data["rule"]["name"], data["rule"]["name"])
        if data["state"] not in ("firing", "updated"):
            return None
        match = data["selector"]["match"]
        names = {"spend": ("team", "request_model"), "alerts": ("team",), "latency": ("request_model",)}[question]
        start = datetime.fromisoformat(data["window"]["start"])
        key = "|".join(match[name] for name in names)
        start_ms = round(start.timestamp() * 1000)
        # A directive that goes on into another window is updated and fires no more.
        return Answer(question, key, start_ms, data["observed"], value["id"], may_repeat=data["state"] == "updated")


class LictorAtLeastOnce(Lictor):
    name, label, delivery = "lictor-alo", "lictor, at least once", "at_least_once"


class JavaPeer(Engine):
    """A peer that is a Java program: our source of its questions, its jars from Maven Central."""

    artifacts = ()
    sources = ()
    main = ""

    def fetch(self):
        jars, classes = self._jars(), self._jars() / "classes"
        if not jars.exists():
            scratch = self.cache / f"{jars.name}.part"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            (scratch / "pom.xml").write_text(self._pom())
            subprocess.run(
                ["mvn", "-B", "-ntp", "-q", "-f", scratch / "pom.xml", "dependency:copy-dependencies",
                 "-DincludeScope=runtime", f"-DoutputDirectory={scratch}"], check=True, timeout=FETCH_LIMIT_S)
            scratch.rename(jars)
        sources = [HERE / "java" / f"{name}.java" for name in self.sources]
        subprocess.run(
            ["javac", "-d", classes, "-cp", f"{jars}/*", *sources], check=True, timeout=FETCH_LIMIT_S)

    def _jars(self):
        versions = "-".join(artifact.rsplit(":", 1)[1] for artifact in self.artifacts[:1])
        return self.cache / f"{self.main}-{versions}"

    def _pom(self):
        dependencies = "".join(
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
                *artifact.split(":"))
            for artifact in (*self.artifacts, "io.opentelemetry.proto:opentelemetry-proto:1.10.0-alpha",
                             "org.slf4j:slf4j-simple:1.7.36"))
        return ("<project><modelVersion>4.0.0</modelVersion><groupId>peers</groupId><artifactId>peer</artifactId>"
                f"<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>")

    def java(self, *arguments):
        jars = self._jars()
        opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util")]
        return ["java", f"-Xmx{HEAP}", *opens, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp", f"{jars / 'classes'}:{jars}/*", self.main, *arguments]


class KafkaStreams(JavaPeer):
    name, label = "kstreams", "Kafka Streams 4.1.1"
    artifacts = ("org.apache.kafka:kafka-streams:4.1.1",)
    sources, main = ("KafkaStreamsPeer", "Otlp", "Sketch"), "KafkaStreamsPeer"
    p95_bound = 0.01
    # Its clock is one of a task and follows the newest row of any partition that was repartitioned into it: rows of
    # others are late by as much as reading them lags behind. With ten seconds it drops most rows of a backlog.
    patience_ms = 300_000

    def command(self, place, is_restart):
        grace_s = str(self.patience_ms // 1000)
        return self.java(place.servers, place.input, place.name, place.folder, str(telemetry.BUDGET_USD), grace_s)


class Flink(JavaPeer):
    name, label = "flink", "Flink SQL 2.2.1"
    artifacts = (
        "org.apache.flink:flink-clients:2.2.1", "org.apache.flink:flink-table-planner-loader:2.2.1",
        "org.apache.flink:flink-table-runtime:2.2.1", "org.apache.flink:flink-table-api-java-bridge:2.2.1",
        "org.apache.flink:flink-json:2.2.1", "org.apache.flink:flink-connector-base:2.2.1",
        "org.apache.flink:flink-connector-kafka:5.0.0-2.2")
    sources, main = ("FlinkPeer", "Otlp"), "FlinkPeer"
    # Its PERCENTILE is exact.
    p95_bound = 0.0
    guarantee, checkpoint_interval = "exactly-once", "1s"

    def prepare(self, place):
        sink = (f"'properties.bootstrap.servers' = '{place.servers}', 'sink.delivery-guarantee' = '{self.guarantee}', "
                "'properties.transaction.timeout.ms' = '60000'")
        text = (HERE / "questions" / "flink.sql").read_text()
        for placeholder, value in (("{name}", place.name), ("{sink}", sink),
                                   ("{budget_usd}", str(telemetry.BUDGET_USD))):
            text = text.replace(placeholder, value)
        (place.folder / "questions.sql").write_text(text)

    def command(self, place, is_restart):
        settings = {
            "parallelism.default": 1, "table.local-time-zone": "UTC", "rest.port": 0,
            "execution.checkpointing.interval": self.checkpoint_interval,
            "execution.checkpointing.dir": f"file://{place.folder}/checkpoints",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        }
        if is_restart:
            settings["execution.state-recovery.path"] = f"file://{self._latest_checkpoint(place)}"
        return self.java(
            place.servers, place.input, place.folder / "questions.sql",
            *(f"{key}={value}" for key, value in settings.items()))

    def _latest_checkpoint(self, place):
        found = place.folder.glob("checkpoints/*/chk-*/_metadata")
        return max(found, key=lambda path: path.stat().st_mtime).parent


class FlinkAtLeastOnce(Flink):
    name, label, guarantee = "flink-alo", "Flink SQL 2.2.1, at least once", "at-least-once"


ALL = (Lictor, LictorAtLeastOnce, Flink, FlinkAtLeastOnce, KafkaStreams)
