"""The command line: fetch, measure, table."""

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

import broker as kafka
import measure
import report
import telemetry
from answers import Expected
from engines import ALL

HOME = Path(os.environ["LICTOR_PEERS_HOME"])
DEFAULT_ENGINES = "lictor,flink,kstreams"


def main():
    # Being told to end is no reason to leave the node and the engine behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    arguments = _arguments()
    if arguments.command == "table":
        print(report.tables([json.loads(line) for line in arguments.results.read_text().splitlines()]))
        return
    known = {engine.name: engine for engine in ALL}
    unknown = [name for name in arguments.engines.split(",") if name not in known]
    if unknown:
        sys.exit(f"no engine {', '.join(unknown)}: there are {', '.join(known)}")
    engines = [known[name](HOME) for name in arguments.engines.split(",")]
    for engine in engines:
        engine.fetch()
    if arguments.command == "measure":
        _measure(engines, arguments)


def _arguments():
    parser = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in (("fetch", "jars and wheels, once"), ("measure", "runs each engine so many times")):
        command = commands.add_parser(name, help=says)
        command.add_argument("--engines", default=DEFAULT_ENGINES, help=f"default {DEFAULT_ENGINES}")
    command.add_argument("--runs", type=int, default=5)
    command.add_argument("--spans", type=int, default=4_000_000, help="of the backlog; about 1 kB each")
    command.add_argument("--backlog-s", type=int, default=15, help="for how long the backlog is read at most")
    command.add_argument("--note", default="", help="kept with the figures, such as what else ran")
    commands.add_parser("table", help="the results as Markdown")
    for command in commands.choices.values():
        command.add_argument("--results", type=Path, default=HOME / "results.jsonl")
    return parser.parse_args()


def _measure(engines, arguments):
    os.sched_setaffinity(0, {measure.OTHER_CORE})
    load = telemetry.make_load(arguments.spans)
    backlog = measure.Backlog(f"spans-{arguments.spans}", load, Expected(load))
    broker = kafka.Broker(kafka.start(measure.OTHER_CORE))
    try:
        _say(f"{arguments.spans} spans in the topic {backlog.topic}")
        broker.fill(backlog.topic, load)
        for number in range(arguments.runs):
            for engine in engines:
                _say(f"run {number + 1} of {arguments.runs}: {engine.label}")
                figures = _one(broker, engine, backlog, arguments.backlog_s)
                line = {"engine": engine.name, "label": engine.label, "at": time.strftime("%FT%TZ", time.gmtime()),
                        "note": arguments.note, "machine": machine(), "load_1m": os.getloadavg()[0], **figures}
                with arguments.results.open("a") as results:
                    results.write(json.dumps(line, default=int) + "\n")
                _say(json.dumps(figures, default=int))
    finally:
        kafka.stop()


def _one(broker, engine, backlog, limit_s):
    try:
        return measure.run(broker, engine, HOME / "runs", backlog, limit_s)
    except measure.Failed as failed:
        return {"failed": str(failed)}


def machine():
    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
               if line.startswith("model name"))
    return f"{os.cpu_count()} cores {cpu}, Linux {platform.release()}"


def _say(text):
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
