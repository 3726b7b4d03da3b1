"""One run of one engine: a backlog for throughput, memory and answers; then live telemetry for latency and recovery."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import telemetry
from answers import Expected, Said
from engines import Place

ENGINE_CORE, OTHER_CORE = 1, 0
START_LIMIT_S = 90
# The part of that time that does not count: caches and just-in-time compilers are cold.
WARM_UP_SHARE = 1 / 3
# When everything was read, answers may still be under way for so long.
SETTLE_S = 2
# Whoever read the last mark may still owe answers of windows that ended so long before.
OWED_MS = 120_000

LIVE_SPANS_PER_S = int(os.environ.get("LICTOR_PEERS_LIVE_SPANS", "5000"))
LIVE_MARKS_PER_S = 40
LIVE_WARM_UP_S = 6
LIVE_MEASURED_S = 8
ARRIVAL_S = 1
RECOVERY_LIMIT_S = 60
AFTER_RECOVERY_S = 1
# Whoever has fallen behind may take so long to answer the rest.
CATCH_UP_LIMIT_S = 20


@dataclass(frozen=True)
class Backlog:
    """A load in a topic, and what it must lead to."""

    topic: str
    load: telemetry.Load
    expected: Expected


class Failed(RuntimeError):
    """A run that gave no figures, with the end of the engine's log."""

    def __init__(self, place, why):
        super().__init__(f"{place.name} {why}:\n{(place.folder / 'log').read_text(errors='replace')[-4000:]}")


class Process:
    """An engine at work on its core; it and all that it started end with `kill`."""

    def __init__(self, engine, place, is_restart=False):
        # It ends with us, however we end.
        wrapper = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(ENGINE_CORE)]
        command = [*wrapper, *map(str, engine.command(place, is_restart))]
        self._log = (place.folder / "log").open("ab")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True)

    def require_alive(self, place):
        if self._process.poll() is not None:
            raise Failed(place, f"has ended with {self._process.returncode}")

    def cpu_s(self):
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_rss_mib(self):
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def kill(self):
        """SIGKILL, as when a machine is lost."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def place_of(broker, engine, folder, kind, input_topic):
    name = f"p-{engine.name}-{kind}-{time.time_ns() // 1_000_000}"
    folder = folder / name
    folder.mkdir(parents=True)
    place = Place(name, folder, broker.servers, input_topic or f"{name}.spans")
    broker.make(engine.outputs(place), 1)
    engine.prepare(place)
    return place


def run(broker, engine, folder, backlog, limit_s):
    """All figures of one run, as a flat dictionary; the backlog is read for `limit_s` from the first answer."""
    place = place_of(broker, engine, folder, "backlog", backlog.topic)
    try:
        figures = read_backlog(broker, engine, place, backlog, limit_s)
    finally:
        _tidy(broker, place)
    place = place_of(broker, engine, folder, "live", None)
    try:
        broker.make([place.input], telemetry.PARTITIONS)
        return figures | follow_live(broker, engine, place)
    finally:
        _tidy(broker, place)


def _tidy(broker, place):
    broker.drop(place.name)
    shutil.rmtree(place.folder)


def read_backlog(broker, engine, place, backlog, limit_s):
    load = backlog.load
    follower = broker.follow(engine.outputs(place))
    process = Process(engine, place)
    try:
        given, samples, seen = _answers_to_backlog(engine, place, process, follower, load, limit_s)
        figures = {"peak_rss_mib": process.peak_rss_mib()}
    finally:
        process.kill()
        follower.close()
    first, last = samples[0], samples[-1]
    begin = next(s for s in samples if s[0] - first[0] >= WARM_UP_SHARE * (last[0] - first[0]))
    wall_s, spans, cpu_s = (last[i] - begin[i] for i in range(3))
    findings = check_backlog(engine, backlog, given, seen)
    return figures | {
        "spans_per_s": spans / wall_s, "spans_per_core_s": spans / cpu_s, "cores_busy": cpu_s / wall_s,
        "measured_s": wall_s, "spans_read": last[1],
        "checked": dict(findings.checked), "wrong": dict(findings.wrong), "examples": dict(findings.examples)}


def check_backlog(engine, backlog, given, seen):
    """What is wrong with the answers of whoever has seen these marks for certain."""
    load = backlog.load
    # Each partition is read up to its latest mark for certain.
    marks = [[n for n in seen if load.mark_partition[n] == p] for p in range(telemetry.PARTITIONS)]
    rows = [load.mark_row[max(numbers)] if numbers else 0 for numbers in marks]
    until_ms = int(load.end_ms[rows].min()) - engine.patience_ms - OWED_MS
    return backlog.expected.check(given, until_ms, [int(load.record[row]) for row in rows], engine.p95_bound)


def _answers_to_backlog(engine, place, process, follower, load, limit_s):
    """What it answered, samples of (time, spans read, processor time), and the marks that were seen."""
    given, samples, seen = {question: [] for question in engine.questions}, [], set()
    said = Said()
    progress = [0] * telemetry.PARTITIONS
    total = len(load.mark_spans)
    limit = time.monotonic() + START_LIMIT_S
    settled = None
    while time.monotonic() < limit:
        message = follower.poll(0.1)
        if message is None:
            process.require_alive(place)
            continue
        answer = engine.answer(*message)
        if answer is None or not said.is_new(answer):
            continue
        given[answer.question].append((answer.key, answer.start_ms, answer.value))
        number = telemetry.mark_number(answer.key) if answer.question == "alerts" else None
        if number is None:
            continue
        if not samples:
            limit = time.monotonic() + limit_s
        seen.add(number)
        partition = load.mark_partition[number]
        progress[partition] = max(progress[partition], load.mark_spans[number])
        samples.append((time.monotonic(), sum(progress), process.cpu_s()))
        if len(seen) == total and settled is None:
            settled = limit = time.monotonic() + SETTLE_S
    if len(samples) < 3:
        raise Failed(place, f"has answered next to nothing in {START_LIMIT_S} s")
    return given, samples, seen


class LiveLoad:
    """Telemetry of now at a steady rate, written by a process of its own until it is told to stop."""

    def __init__(self, servers, topic):
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_write_live, args=(servers, topic, self._stop, theirs), daemon=True)
        self._process.start()

    def stop(self):
        """When each mark was sent, in ns; that is also its number."""
        self._stop.set()
        return self._pipe.recv() if self._pipe.poll(30) else []

    def end(self):
        self._process.kill()


def _write_live(servers, topic, stop, pipe):
    from broker import Broker
    producer, writer, dice, sent = Broker(servers).producer(), telemetry.RecordWriter(), random.Random(1), []
    records_per_s = LIVE_SPANS_PER_S // telemetry.SPANS_PER_RECORD
    began = time.monotonic()
    records = 0
    while not stop.is_set():
        elapsed = time.monotonic() - began
        while records < elapsed * records_per_s:
            team, payload = telemetry.live_record(writer, dice, time.time_ns() // 1_000_000, records)
            producer.produce(topic, payload, team.encode(), partition=records % telemetry.PARTITIONS)
            records += 1
        while len(sent) < elapsed * LIVE_MARKS_PER_S:
            now_ns = time.time_ns()
            team, payload = telemetry.live_mark(writer, now_ns // 1_000_000, now_ns)
            producer.produce(topic, payload, team.encode(), partition=len(sent) % telemetry.PARTITIONS)
            sent.append(now_ns)
        producer.poll(0)
        time.sleep(0.002)
    producer.flush(10)
    pipe.send(sent)


def follow_live(broker, engine, place):
    """Latency of alerts; then the time from `kill -9` to the first alert about what was sent after it."""
    follower = broker.follow(engine.outputs(place))
    load = LiveLoad(broker.servers, place.input)
    process = Process(engine, place)
    arrived, said = defaultdict(list), Said()

    def follow(until, is_enough=lambda number: False):
        """Notes what arrives; true as soon as it is enough."""
        while time.monotonic() < until:
            message = follower.poll(0.05)
            now_ns = time.time_ns()
            answer = engine.answer(*message) if message else None
            is_alert = answer is not None and answer.question == "alerts" and said.is_new(answer)
            number = telemetry.mark_number(answer.key) if is_alert else None
            if number is not None:
                arrived[number].append(now_ns)
                if is_enough(number):
                    return True
            elif message is None:
                process.require_alive(place)
        return False

    try:
        if not follow(time.monotonic() + START_LIMIT_S, lambda number: True):
            raise Failed(place, f"has said nothing in {START_LIMIT_S} s")
        follow(time.monotonic() + LIVE_WARM_UP_S)
        measured_from = time.time_ns()
        follow(time.monotonic() + LIVE_MEASURED_S)
        measured_until = time.time_ns()
        # Alerts under way may arrive. What comes still later counts with what recovery took.
        follow(time.monotonic() + ARRIVAL_S)
        process.kill()
        killed_ns = time.time_ns()
        process = Process(engine, place, is_restart=True)
        is_back = follow(time.monotonic() + RECOVERY_LIMIT_S, lambda number: number > killed_ns)
        recovery_s = (time.time_ns() - killed_ns) / 1e9 if is_back else None
        follow(time.monotonic() + AFTER_RECOVERY_S)
        sent = set(load.stop())
        follow(time.monotonic() + CATCH_UP_LIMIT_S, lambda _: sent <= arrived.keys())
    finally:
        load.end()
        process.kill()
        follower.close()
    latencies_ms = _latencies(arrived, measured_from, measured_until)
    return {
        "p50_ms": quantile(latencies_ms, 0.5), "p99_ms": quantile(latencies_ms, 0.99), "alerts": len(latencies_ms),
        "recovery_s": recovery_s, "lost": sum(number not in arrived for number in sent),
        "twice": sum(len(times) > 1 for times in arrived.values())}


def _latencies(arrived, since_ns, until_ns):
    return sorted(
        (times[0] - number) / 1e6 for number, times in arrived.items() if since_ns <= number < until_ns)


def quantile(ordered, q):
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
