"""Instances come and go while telemetry of now comes in: how long alerts stand still, and what the exchange takes."""

import time
from dataclasses import dataclass, field

import measure
import telemetry
from answers import Said
from instances import Instance
from sights import Sights, between, is_all_served

# For how long alerts are watched after something has happened; its second half is steady.
AFTER_S = 16
CALM_S = 4


@dataclass
class Phase:
    """What followed when something happened at `began_ns`."""

    name: str
    began_ns: int
    ended_ns: int = 0
    served_s: float | None = None
    steady: dict = field(default_factory=dict)


@dataclass
class Watch:
    """Marks sent and alerts that have come, by the mark's number, which is when it was sent."""

    engine: object
    follower: object
    said: Said = field(default_factory=Said)
    arrived: dict = field(default_factory=dict)
    twice: int = 0

    def poll(self):
        message = self.follower.poll(0.05)
        now_ns = time.time_ns()
        answer = self.engine.answer(*message) if message else None
        if answer is None or answer.question != "alerts" or not self.said.is_new(answer):
            return
        number = telemetry.mark_number(answer.key)
        if number is not None:
            self.twice += number in self.arrived
            self.arrived.setdefault(number, now_ns)


class Live:
    """Telemetry of now, and the instances that judge it."""

    def __init__(self, broker, node, engine, place, share):
        self._engine, self._node, self._place, self._share = engine, node, place, share
        self.watch = Watch(engine, broker.follow(engine.outputs(place)))
        self.load = measure.LiveLoad(broker.servers, place.input)
        self.instances = []

    def end(self):
        self.load.end()
        for instance in self.instances:
            instance.kill()
        self.watch.follower.close()

    def start_one(self):
        """When that was."""
        began_ns = time.time_ns()
        self.instances.append(Instance(self._engine, self._place, f"i{len(self.instances)}", self._share))
        return began_ns

    def alone(self):
        """The first instance, once it has told what came before anybody read."""
        first = Phase("alone", self.start_one())
        limit = time.monotonic() + measure.START_LIMIT_S
        while not (self.watch.arrived and first.served_s) and time.monotonic() < limit:
            self._follow(first, self.instances, 1)
        self._follow(first, self.instances, CALM_S)
        return self.after("alone", time.time_ns(), self.instances, first.served_s)

    def after(self, name, began_ns, instances, served_s=None):
        """What follows that something has happened."""
        phase = Phase(name, began_ns, served_s=served_s)
        self._follow(phase, instances, AFTER_S / 2)
        sights = Sights(self._node, self._place, instances)
        before = sights.take(0)
        self._follow(phase, instances, AFTER_S / 2, sights)
        phase.steady = between(before, sights.take(0), sights)
        phase.ended_ns = time.time_ns()
        return phase

    def _follow(self, phase, instances, seconds, sights=None):
        until, look_at = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            self.watch.poll()
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + 0.2
            if sights:
                sights.look()
            if phase.served_s is None and is_all_served([instance.metrics() for instance in instances]):
                phase.served_s = (time.time_ns() - phase.began_ns) / 1e9


def run(broker, node, engine, folder, share):
    """Latency of alerts while one instance is alone, while a second and a third join, and while one leaves."""
    place = measure.place_of(broker, engine, folder, "join", None)
    broker.make([place.input], telemetry.PARTITIONS)
    live = Live(broker, node, engine, place, share)
    try:
        phases = [live.alone()]
        for name in ("the second joins", "the third joins"):
            phases.append(live.after(name, live.start_one(), live.instances))
        began_ns = time.time_ns()
        live.instances[-1].tell_to_stop()
        phases.append(live.after("the third leaves", began_ns, live.instances[:-1]))
        sent = live.load.stop()
        limit = time.monotonic() + measure.CATCH_UP_LIMIT_S
        while time.monotonic() < limit and not set(sent) <= live.watch.arrived.keys():
            live.watch.poll()
    finally:
        live.end()
        broker.drop(place.name)
    arrived = live.watch.arrived
    return {
        "phases": [_figures(phase, arrived) for phase in phases], "share": share, "live": measure.LIVE_SPANS_PER_S,
        "lost": sum(number not in arrived for number in sent), "twice": live.watch.twice}


def _figures(phase, arrived):
    of_phase = {sent: at for sent, at in arrived.items() if phase.began_ns <= sent < phase.ended_ns}
    latencies_ms = sorted((at - sent) / 1e6 for sent, at in of_phase.items())
    times = sorted(of_phase.values())
    gaps_ms = [(after - before) / 1e6 for before, after in zip(times, times[1:])]
    return phase.steady | {
        "phase": phase.name, "served_s": phase.served_s, "alerts": len(times), "gap_ms": max(gaps_ms, default=None),
        "p50_ms": measure.quantile(latencies_ms, 0.5), "p99_ms": measure.quantile(latencies_ms, 0.99),
        "max_ms": latencies_ms[-1] if latencies_ms else None}
