"""Some instances read a backlog: spans per second, what each does of it, and what goes over the topics."""

import time

import measure
import telemetry
from answers import Said
from instances import Instance
from sights import Sights, between, is_all_served

# Caches are cold, and the consumer first fills its queues (128 MiB), which takes processor time for nothing read.
WARM_UP_S = 8
LOOK_EVERY_S = 0.3
# Shards answer one after the other: what was read before a mark may be answered behind it.
SETTLE_S = 5


class Answers:
    """What was answered, and the marks seen by the end of the measurement."""

    def __init__(self, engine, follower, load):
        self._engine, self._follower, self._load, self._said = engine, follower, load, Said()
        self.given = {question: [] for question in engine.questions}
        self.seen, self.is_over = set(), False
        self._progress = [0] * telemetry.PARTITIONS

    def poll(self):
        """Takes the next answer."""
        message = self._follower.poll(0.05)
        answer = self._engine.answer(*message) if message else None
        if answer is None or not self._said.is_new(answer):
            return
        self.given[answer.question].append((answer.key, answer.start_ms, answer.value))
        number = telemetry.mark_number(answer.key) if answer.question == "alerts" else None
        if number is not None and not self.is_over:
            self.seen.add(number)
            partition = self._load.mark_partition[number]
            self._progress[partition] = max(self._progress[partition], self._load.mark_spans[number])

    def spans(self):
        """How many were read for certain."""
        return sum(self._progress)


def run(broker, node, engine, folder, backlog, instances, share, limit_s):
    """All figures of one run of so many instances, as a flat dictionary."""
    place = measure.place_of(broker, engine, folder, f"scale{instances}", backlog.topic)
    started = [Instance(engine, place, f"i{n}", share) for n in range(instances)]
    follower = broker.follow(engine.outputs(place))
    try:
        answers = Answers(engine, follower, backlog.load)
        _wait_until_all_serve(place, started, answers)
        figures = _steady(node, place, started, answers, limit_s)
        figures["peak_rss_mib"] = [instance.peak_rss_mib() for instance in started]
        answers.is_over = True
        _follow(answers, SETTLE_S)
    finally:
        for instance in started:
            instance.kill()
        follower.close()
        broker.drop(place.name)
    findings = measure.check_backlog(engine, backlog, answers.given, answers.seen)
    return figures | {
        "instances": instances, "share": share,
        "checked": dict(findings.checked), "wrong": dict(findings.wrong), "examples": dict(findings.examples)}


def _follow(answers, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answers.poll()


def _wait_until_all_serve(place, instances, answers):
    limit = time.monotonic() + measure.START_LIMIT_S
    while time.monotonic() < limit:
        _follow(answers, LOOK_EVERY_S)
        if not all(instance.is_alive() for instance in instances):
            raise measure.Failed(place, "has lost an instance")
        if is_all_served([instance.metrics() for instance in instances]):
            _follow(answers, WARM_UP_S)
            return
    raise measure.Failed(place, f"does not serve with all instances in {measure.START_LIMIT_S} s")


def _is_dry(metrics):
    lags = [value for series, value in metrics.items() if series.startswith("lictor_consumer_lag{")]
    # Which there are is known some seconds after the start.
    return len(lags) > 0 and max(lags) == 0


def _steady(node, place, instances, answers, limit_s):
    """Until somebody has read all there is for it, or the time is up."""
    sights = Sights(node, place, instances)
    before = sights.take(answers.spans())
    while time.monotonic() < before["at"] + limit_s:
        _follow(answers, LOOK_EVERY_S)
        sights.look()
        if any(_is_dry(instance.metrics()) for instance in instances):
            break
    return between(before, sights.take(answers.spans()), sights)
