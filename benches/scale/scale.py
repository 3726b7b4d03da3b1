"""The command line: measure, table, fit, model."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import backlog as reading
import broker as kafka
import fit
import joining
import measure
import model
import peers
import tables
import telemetry
from answers import Expected
from engine import Lictor
from node import Node

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ["LICTOR_PEERS_HOME"])


def main():
    # Being told to end is no reason to leave the node and instances behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    arguments = _arguments()
    if arguments.command == "table":
        print(tables.tables(_results(arguments)))
    elif arguments.command == "fit":
        _fit(arguments)
    elif arguments.command == "model":
        print(model.tables(json.loads(arguments.coefficients.read_text())))
    else:
        _measure(arguments)


def _arguments():
    parser = argparse.ArgumentParser(prog="benches/scale/run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("measure", help="runs so many times with each number of instances")
    command.add_argument("--instances", default="1,2,3", help="how many at a time, default 1,2,3")
    command.add_argument("--runs", type=int, default=3)
    command.add_argument("--share", type=float, default=0.4, help="of a core, for each instance")
    command.add_argument("--spans", type=int, default=4_000_000, help="of the backlog; about 1 kB each")
    command.add_argument("--backlog-s", type=int, default=12, help="for how long the steady state is watched at most")
    command.add_argument("--joins", type=int, default=1, help="runs in which instances come and go")
    command.add_argument("--note", default="", help="kept with the figures, such as what else ran")
    command.add_argument("--results", type=Path, default=HOME / "scale.jsonl")
    command = commands.add_parser("table", help="the results as Markdown")
    command.add_argument("--results", type=Path, nargs="+", default=[HOME / "scale.jsonl"])
    command = commands.add_parser("fit", help="writes the coefficients that results tell, and compares")
    command.add_argument("--results", type=Path, nargs="+", default=[HOME / "scale.jsonl"])
    command.add_argument("--coefficients", type=Path, default=HERE / "coefficients.json")
    command = commands.add_parser("model", help="what a number of spans per second takes, as Markdown")
    command.add_argument("--coefficients", type=Path, default=HERE / "coefficients.json")
    return parser.parse_args()


def _results(arguments):
    return [json.loads(line) for file in arguments.results for line in file.read_text().splitlines()]


def _fit(arguments):
    """Puts what these results say in place of what the file says; what they do not tell stays."""
    results, said = _results(arguments), json.loads(arguments.coefficients.read_text())
    for name, value in fit.fitted(results).items():
        said[name][0] = float(f"{value:.3g}")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in said.items())
    arguments.coefficients.write_text(f"{{\n{lines}\n}}\n")
    print("\n".join(fit.compared(results, {name: value for name, (value, _, _) in said.items()})))


def _measure(arguments):
    engine = Lictor(HOME)
    engine.fetch()
    load = telemetry.make_load(arguments.spans)
    backlog = measure.Backlog(f"spans-{arguments.spans}", load, Expected(load))
    with_core = os.sched_getaffinity(0)
    broker = kafka.Broker(kafka.start(",".join(map(str, sorted(with_core)))))
    try:
        node = Node(broker.servers)
        _say(f"{arguments.spans} spans in the topic {backlog.topic}")
        broker.fill(backlog.topic, load)
        for number in range(arguments.runs):
            for instances in map(int, arguments.instances.split(",")):
                _say(f"run {number + 1} of {arguments.runs}: {instances} at {arguments.share} of a core")
                run = lambda: reading.run(
                    broker, node, engine, HOME / "runs", backlog, instances, arguments.share, arguments.backlog_s)
                _keep("backlog", run, arguments)
        for number in range(arguments.joins):
            _say(f"run {number + 1} of {arguments.joins}: instances come and go")
            _keep("joins", lambda: joining.run(broker, node, engine, HOME / "runs", arguments.share), arguments)
    finally:
        kafka.stop()


def _keep(kind, run, arguments):
    """Runs, and appends a line to the results."""
    head = {"kind": kind, "at": time.strftime("%FT%TZ", time.gmtime()), "note": arguments.note,
            "machine": peers.machine(), "load_1m": os.getloadavg()[0]}
    try:
        figures = run()
    except measure.Failed as failed:
        figures = {"failed": str(failed)}
    with arguments.results.open("a") as results:
        results.write(json.dumps(head | figures, default=int) + "\n")
    _say(json.dumps(figures, default=int))


def _say(text):
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
