#!/usr/bin/env python3
"""Holds events against what other people say they must be: JSON Schema by `jsonschema`, CloudEvents by its Python SDK.

    tests/contract.py events.jsonl [file or folder ...]

A .jsonl file has one event a line, a .json file is one event; of a folder all of its .json files are read. Ends with 1
if an event is refused. Without the two packages and without a way to install them it is skipped, which it says.

LICTOR_PYTHON   where they are installed (default ~/.cache/lictor-python)
"""
import json
import os
import subprocess
import sys
import venv
from datetime import datetime
from pathlib import Path

PACKAGES = ["jsonschema[format-nongpl]==4.26.0", "cloudevents==2.2.0"]
HOME = Path(os.environ.get("LICTOR_PYTHON", Path.home() / ".cache" / "lictor-python"))
SCHEMA = Path(__file__).parent.parent / "schemas" / "enforcement-event.v1.schema.json"


def install_and_start_again():
    """Ends this process: another one goes on with the packages, or there is nothing to go on with."""
    python = HOME / "bin" / "python"
    if sys.version_info < (3, 11):
        print("contract: skipped: Python 3.11 or later is needed", file=sys.stderr)
        sys.exit(0)
    if Path(sys.prefix) == HOME:
        sys.exit("contract: skipped: the packages are installed and cannot be imported")
    try:
        if not python.exists():
            venv.create(HOME, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"contract: skipped: {' '.join(PACKAGES)} cannot be installed to {HOME}: {error}", file=sys.stderr)
        print("contract: on Debian: apt-get install python3-venv", file=sys.stderr)
        sys.exit(0)
    os.execv(python, [python, __file__, *sys.argv[1:]])


try:
    from cloudevents.core.bindings.kafka import KafkaMessage, from_structured
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.v1.http import from_json
    from jsonschema import Draft202012Validator
except ImportError:
    install_and_start_again()


def texts(path):
    """Where each event stands, and the event."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield from texts(file)
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path}:{number}", line
    else:
        yield str(path), path.read_text()


def faults(text, validator):
    event = json.loads(text)
    yield from (f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(event))
    headers = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    key = event.get("partitionkey", "").encode()
    try:
        # As the SDK reads Kafka since its version 2, and as everybody has read JSON before.
        by_kafka = from_structured(KafkaMessage(headers, key, text.encode()), JSONFormat())
        by_json = from_json(text)
    except Exception as refused:  # whatever the SDK does not take
        yield f"no CloudEvent: {refused!r}"
        return
    for name, value in event.items():
        found = (by_kafka.get_attributes().get(name), by_json.get(name))
        if name == "data":
            found = (by_kafka.get_data(), by_json.get_data())
        elif name == "time":
            found, value = (found[0], datetime.fromisoformat(found[1])), datetime.fromisoformat(value)
        if found != (value, value):
            yield f"the SDK reads {name} as {found!r} and not as {value!r}"
    # Names that every binding takes: lower-case letters and digits, at most twenty of them.
    strange = [name for name in event if not (name.isalnum() and name == name.lower() and len(name) <= 20)]
    if strange:
        yield f"attributes with names that CloudEvents does not have: {strange}"


def main(paths):
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    count, refused = 0, 0
    for path in paths:
        for place, text in texts(path):
            found = list(faults(text, validator))
            count, refused = count + 1, refused + bool(found)
            for fault in found:
                print(f"{place}: {fault}", file=sys.stderr)
    print(f"contract: {count} events, {refused} refused")
    return 1 if refused or not count else 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
