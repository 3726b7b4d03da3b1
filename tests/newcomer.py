#!/usr/bin/env python3
"""Goes the way of the README's "Your first rule", with the very texts that stand there.

    tests/newcomer.py [--lictor PATH]

PATH is the binary (default: where cargo builds it). The rule is checked and tested, fires in the demo and is seen by its
console, says the same of the demo's topics in a backtest, and is made silent and milder by edits whose effect is shown.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is left beside the tests

from console import STORY_S, Lictor, wait_for

SECTION = "## Your first rule"


def blocks(language):
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = text.split(SECTION)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def ask(url, what):
    with urllib.request.urlopen(f"{url}api/v1/{what}") as answer:
        return json.load(answer)


def main():
    parser = argparse.ArgumentParser()
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    parser.add_argument("--lictor", default=os.path.join(target, "debug", "lictor"))
    lictor = os.path.abspath(parser.parse_args().lictor)
    with tempfile.TemporaryDirectory(prefix="lictor-newcomer-") as folder:
        go(lictor, Path(folder))


def go(lictor, folder):
    def run(*words):
        done = subprocess.run([lictor, *words], cwd=folder, capture_output=True, text=True, timeout=STORY_S)
        assert done.returncode == 0, f"lictor {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(rules, sql):
        (folder / rules).mkdir(exist_ok=True)
        (folder / rules / "big_spender.sql").write_text(sql, encoding="utf-8")
        (folder / rules / "big_spender.test.yaml").write_text(test, encoding="utf-8")

    [sql], [test], [commands] = blocks("sql"), blocks("yaml"), blocks("sh")
    write("rules", sql)
    assert "0 faults, 0 warnings" in run("check", "rules")
    said = run("test", "rules", "--coverage")
    assert "1 passed, 0 failed" in said and "coverage 100 %" in said, said
    print("newcomer: checked and tested")
    os.chdir(folder)
    demo = Lictor([lictor, "demo", "--rules", "rules", "--http", "127.0.0.1:0"], folder)
    try:
        fired = wait_for("big_spender fires in the console", lambda: ask(demo.url, "events")["events"], STORY_S)
        teams = {event["subject"]["team"] for event in fired}
        print(f"newcomer: fired for {', '.join(sorted(teams))}")
        broker = re.search(r"Kafka: +([0-9.:]+)", (folder / "demo.log").read_text(encoding="utf-8"))[1]
        backtest = [words.split("#")[0].split()[1:] for words in commands.splitlines() if "backtest" in words]
        [backtest] = [[broker if ":" in word else word for word in words] for words in backtest]
        said = json.loads(run(*backtest, "--format", "json"))
        assert said["rules"][0]["events"], said
        write("before", sql)
        write("rules", sql.replace("owner =", "mode = 'shadow', owner ="))
        assert "moved" in run(*backtest, "--against", "before"), "in shadow mode"
        write("rules", sql.replace("20 AS", "2000 AS").replace(">= 20", ">= 2000"))
        assert "removed" in run(*backtest, "--against", "before"), "with another limit"
        print("newcomer: backtested, made silent, made milder")
    finally:
        demo.close()


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"newcomer: {error}")
