#!/usr/bin/env python3
"""Drives the console in a headless Chromium, against a real engine: `lictor demo`, and `lictor run` if there is a Kafka.

    tests/console.py [--lictor PATH] [--shots DIR]

PATH is the binary (default: where cargo builds it), DIR gets the README's pictures. With KAFKA_BOOTSTRAP the login and a
refused reload are looked at, too. Only Python's standard library and Chromium's own driver are needed; without Chromium
it says so and ends well.
"""

import argparse
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

DEADLINE_S = 60  # for anything that is waited for: the machine may be busy
STORY_S = 300  # until everything in the pictures has happened
TOKEN = "correct-horse-battery-staple"
PAGES = ["Overview", "Rules", "Directives", "Events", "Partitions", "Dead letters", "Reloads"]
ENTER, TAB, ESCAPE, LEFT = "\ue007", "\ue004", "\ue00c", "\ue012"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, check, patience_s=DEADLINE_S):
    """The first true answer of `check`."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"in {patience_s} s it has not come to this: {what}")
        time.sleep(0.1)


class Browser:
    """A session of chromedriver (W3C WebDriver), and the few commands that are needed."""

    def __init__(self, folder):
        port = free_port()
        log = os.path.join(folder, "chromedriver.log")
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}", f"--log-path={log}"], stdout=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        wait_for("chromedriver answers", self._is_up)
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", "--no-first-run", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        options = {"args": arguments, "binary": shutil.which("chromium")}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += f"/session/{session['sessionId']}"
        self.size(1280, 800)

    def _is_up(self):
        try:
            return self._send("GET", "/status")["ready"]
        except OSError:
            return False

    def _send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message']}") from None

    def go(self, url):
        self._send("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, *keys):
        """Types, wherever the focus is."""
        pressed = [{"type": kind, "value": key} for word in keys for key in word for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": pressed}]})

    def cdp(self, command, **parameters):
        self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height, is_phone=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def complaints(self):
        """What the browser has complained of since the last call."""
        return [entry["message"] for entry in self._send("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def shoot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._send("GET", "/screenshot")))
        if shutil.which("pngquant"):
            subprocess.run(["pngquant", "--force", "--strip", "--output", path, "96", path], check=True)

    def close(self):
        try:
            self._send("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()


class Lictor:
    """A running engine; its console is at `url`."""

    def __init__(self, command, folder, environment=None):
        # A file and no pipe: nobody reads along, and a full pipe would hold the engine up.
        path = os.path.join(folder, f"{command[1]}.log")
        with open(path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})

        def said():
            with open(path, encoding="utf-8") as log:
                text = log.read()
            assert self.process.poll() is None, f"{command} has ended: {text}"
            return re.search(r"[Cc]onsole:? (?:at )?(http://[0-9.:]+/)", text)

        self.url = wait_for("lictor says where its console is", said)[1]

    def close(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=DEADLINE_S)


def open_page(browser, name):
    browser.run("[...document.querySelectorAll('nav a')].find(a => a.textContent === arguments[0]).click()", name)
    heading = "return document.querySelector('main h1')?.textContent ?? ''"
    wait_for(f"page {name}", lambda: browser.run(heading).startswith(name.split(" ")[0]))


def ask(url, what):
    with urllib.request.urlopen(f"{url}api/v1/{what}", timeout=DEADLINE_S) as answer:
        return json.load(answer)


def first_directive(url):
    """A directive that holds; the demo's story has one after half a minute."""
    return wait_for("something fires", lambda: ask(url, "directives")["directives"])[0]


def no_complaints(browser, where):
    complaints = browser.complaints()
    assert not complaints, f"{where}: {complaints}"


def check_pages(browser, url):
    browser.go(url)
    wait_for("the first page", lambda: browser.run("return document.querySelector('main h1')?.textContent") == "Overview")
    for name in PAGES:
        open_page(browser, name)
        shape = browser.run("""return {
            h1: document.querySelectorAll('h1').length, main: document.querySelectorAll('main').length,
            nav: document.querySelectorAll('nav[aria-label]').length, search: document.querySelectorAll('[role=search]').length,
            current: document.querySelector('nav [aria-current]')?.textContent,
            unnamed: [...document.querySelectorAll('button, a, input, select')].filter(e => !(e.textContent.trim()
              || e.labels?.length || e.getAttribute('aria-label'))).map(e => e.outerHTML),
            wide: document.documentElement.scrollWidth > innerWidth }""")
        expected = {"h1": 1, "main": 1, "nav": 1, "search": 1, "current": name, "unnamed": [], "wide": False}
        assert shape == expected, f"{name}: {shape}"
        no_complaints(browser, name)
    foreign = browser.run("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))")
    assert foreign == [], f"asked of others: {foreign}"


def check_live(browser):
    open_page(browser, "Overview")
    figure = "return document.querySelector('.trend small').textContent"
    before = browser.run(figure)
    wait_for("the records go on without a click", lambda: browser.run(figure) != before)
    drawn = lambda: int(browser.run("return document.getElementById('main').dataset.drawn"))
    browser.run("document.querySelector('main a').focus(); window.focused = document.activeElement")
    at = drawn()
    wait_for("three more updates", lambda: drawn() >= at + 3)
    assert browser.run("return document.activeElement === window.focused && window.focused.isConnected"), "an update took the focus"


def check_keyboard(browser, url):
    browser.go("about:blank")
    browser.go(url + "#/rules")
    wait_for("rules", lambda: browser.run("return document.querySelectorAll('tbody tr').length > 0"))
    active = lambda: browser.run("return document.activeElement.id || document.activeElement.textContent")
    browser.keys(TAB)
    assert active() == "skip", f"the first stop is the skip link, not {active()}"
    browser.keys(ENTER)
    assert active() == "main", active()
    browser.keys("/")
    assert active() == "search", active()

    def search():
        # The demo's time flies: what holds may have ended by the time its name is typed.
        word = str(next(iter(first_directive(url)["subject"].values())))
        browser.run("document.getElementById('search').select()")
        browser.keys(word)
        wait_for("the search is in the address", lambda: f"q={word}" in browser.run("return location.hash"))
        answered = "return document.querySelector('main .filters button')?.textContent.includes(arguments[0])"
        wait_for("the search is answered", lambda: browser.run(answered, word))
        rows = browser.run("return [...document.querySelectorAll('main tbody tr')].map(r => r.textContent)")
        assert all(word in row for row in rows), rows
        return rows

    wait_for("the search finds something", search)
    browser.keys(ESCAPE)
    assert active() == "main", active()
    browser.keys(TAB, TAB)
    link = browser.run("return document.activeElement.tagName")
    assert link in ("SELECT", "BUTTON", "A"), f"Tab leads on into the page, not to {link}"
    browser.go(url + "#/directives?q=nobody-has-this-name")
    wait_for("nothing is found", lambda: "None" in browser.run("return document.querySelector('main .empty')?.textContent ?? ''"))


def check_rule(browser, url):
    browser.go(url + "#/rules/team_daily_budget")
    wait_for("a chart", lambda: browser.run("return document.querySelector('.chart .line')?.getAttribute('d')?.split('L').length ?? 0") > 5)
    calm = browser.run("return [...document.querySelectorAll('.closeness b')].map(b => parseInt(b.textContent))")
    assert any(share < 80 for share in calm), f"who violates nothing is in the chart, too: {calm}"
    said = "return document.querySelector('.chart output').textContent"
    before = browser.run(said)
    browser.run("document.querySelector('.chart svg').focus()")
    browser.keys(LEFT, LEFT)
    wait_for("an arrow key moves along the line", lambda: browser.run(said) != before)
    for part, words in [(".sql", "CREATE RULE team_daily_budget"), (".explain", "group keys"), (".options", "BUDGET_EXCEEDED")]:
        assert words in browser.run("return document.querySelector(arguments[0]).textContent", part), part
    assert browser.run("return document.querySelectorAll('.sql-word').length") > 5, "SQL has colours"
    no_complaints(browser, "rule")


def check_contrast(browser, url):
    """Text against what is behind it, by WCAG 2: 4.5 to 1 at least."""
    for page in ["", "#/rules/team_daily_budget", "#/directives", "#/dead-letters"]:
        browser.go(url + page)
        wait_for("a page", lambda: browser.run("return document.querySelectorAll('main h1').length"))
        faint = browser.run("""
            const light = ([r, g, b]) => { const c = [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
              return .2126 * c[0] + .7152 * c[1] + .0722 * c[2]; };
            const parts = (text) => text.match(/[0-9.]+/g).map(Number);
            const behind = (e) => { for (; e; e = e.parentElement) { const p = parts(getComputedStyle(e).backgroundColor); if (p[3] !== 0) return p; } return [255, 255, 255]; };
            const texts = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('svg, dialog, .unseen, .skip')
              && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
            return texts.map(e => { const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
              return [(a + .05) / (b + .05), e.className, e.textContent.slice(0, 30)]; }).filter(([c]) => c < 4.5)""")
        assert faint == [], f"{page}: {faint}"


def check_dark(browser, url):
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    light = browser.run(ground)
    check_contrast(browser, url)
    browser.scheme("dark")
    assert browser.run(ground) != light, "dark is another colour"
    check_contrast(browser, url)
    browser.scheme("light")


def check_phone(browser, url):
    browser.size(390, 844, is_phone=True)
    for name in PAGES:
        open_page(browser, name)
        time.sleep(0.1)
        wide = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= 390 and wide[1] == 390, f"{name} is {wide} wide on a phone"
    browser.go(url + "#/rules/team_daily_budget")
    wait_for("a chart", lambda: browser.run("return document.querySelectorAll('.chart .line').length"))
    assert browser.run("return document.documentElement.scrollWidth") <= 390, "the chart is wider than a phone"
    no_complaints(browser, "phone")
    browser.size(1280, 800)


def take_pictures(browser, url, folder):
    os.makedirs(folder, exist_ok=True)
    wait_for("a budget is used up", lambda: ask(url, "events?rule=team_daily_budget&action=block")["events"], STORY_S)
    shots = [
        ("overview", "", "light", (1280, 800)),
        ("rule", "#/rules/team_daily_budget", "light", (1280, 800)),
        ("directives-dark", "#/directives", "dark", (1280, 800)),
        ("rule-dark", "#/rules/latency_p95", "dark", (1280, 800)),
        ("partitions", "#/partitions", "light", (1280, 800)),
        ("phone", "", "light", (390, 844)),
        ("phone-rule", "#/rules/session_runaway", "dark", (390, 844)),
    ]
    for name, page, scheme, (width, height) in shots:
        browser.scheme(scheme)
        browser.size(width, height, is_phone=width < 500)
        browser.go(url + page)
        browser.run("scrollTo(0, 0)")
        time.sleep(2.5)
        browser.shoot(os.path.join(folder, f"{name}.png"))
    browser.scheme("light")
    browser.size(1280, 800)


def check_login_and_reload(browser, lictor, bootstrap, folder):
    """A console with a token beside a real Kafka: nothing is seen without it, and a faulty rule is shown."""
    rules = os.path.join(folder, "rules")
    os.makedirs(rules)
    with open(os.path.join(rules, "a.sql"), "w", encoding="utf-8") as file:
        file.write("CREATE RULE costly WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS\n"
                   "SELECT s.team, s.cost_total AS observed FROM spans AS s WHERE s.cost_total > 5;\n")
    # The input topics must exist, and this test makes none: those of other tests are as good.
    config = os.path.join(folder, "lictor.yaml")
    application = f"console-{os.getpid()}"
    with open(config, "w", encoding="utf-8") as file:
        json.dump({
            "application_id": application, "kafka": {"bootstrap.servers": bootstrap}, "rules": rules, "http": "off",
            "console": {"listen": f"127.0.0.1:{free_port()}", "token": "${env:CONSOLE_TOKEN}", "allow_reload": "true"},
            "topics": {name: f"{application}.{name}" for name in ("enforcement", "directives", "directives_shadow", "dead_letter", "late")},
        }, file)
    engine = Lictor([lictor, "run", "-c", config], folder, {"CONSOLE_TOKEN": TOKEN})
    try:
        browser.go(engine.url)
        is_open = "return document.getElementById('login').open"
        wait_for("the console asks for its token", lambda: browser.run(is_open))
        assert browser.run("return document.querySelector('main').textContent") == "", "nothing is shown before"
        browser.run("document.getElementById('token').focus()")
        browser.keys("this-is-not-the-token", ENTER)
        wait_for("a wrong token is refused", lambda: "not the token" in browser.run("return document.getElementById('login-fault').textContent"))
        browser.run("document.getElementById('token').focus()")
        browser.keys(TOKEN, ENTER)
        wait_for("the page", lambda: not browser.run(is_open) and browser.run("return document.querySelector('main h1')?.textContent") == "Overview")
        assert browser.run("return document.cookie") == "" and TOKEN not in browser.run("return location.href")
        browser.complaints()
        open_page(browser, "Reloads")
        with open(os.path.join(rules, "b.sql"), "w", encoding="utf-8") as file:
            file.write("CREATE RULE broken WITH (action = 'warn', reason_code = 'x_b') AS SELECT s.nothing FROM spans AS s;\n")
        browser.run("document.querySelector('button.primary').click()")
        pre = "return document.querySelector('.reading.refused pre')?.textContent ?? ''"
        wait_for("the refused rule is shown with its fault", lambda: "b.sql" in browser.run(pre))
        os.remove(os.path.join(rules, "b.sql"))
        wait_for("the button is there again", lambda: browser.run("return !document.querySelector('button.primary').disabled"))
        browser.run("document.querySelector('button.primary').click()")
        wait_for("the rules are in use again", lambda: browser.run("return document.querySelector('main [role=status]').textContent") == "Applied.")
    finally:
        engine.close()


def main():
    parser = argparse.ArgumentParser()
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    parser.add_argument("--lictor", default=os.path.join(target, "debug", "lictor"))
    parser.add_argument("--shots")
    arguments = parser.parse_args()
    missing = [tool for tool in ("chromium", "chromedriver") if shutil.which(tool) is None]
    if missing:
        print(f"console: skipped, {' and '.join(missing)} not found (on Debian: tests/packages.sh --chromium)")
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lictor-console-", ignore_cleanup_errors=True) as folder:
        demo = Lictor([arguments.lictor, "demo", "--http", "127.0.0.1:0"], folder)
        browser = Browser(folder)
        try:
            checks = [check_pages, check_live, check_rule, check_keyboard, check_dark, check_phone]
            for check in checks:
                check(browser, *([] if check is check_live else [demo.url]))
                print(f"console: {check.__name__} ok ({time.monotonic() - began:.0f} s)")
            if arguments.shots:
                take_pictures(browser, demo.url, arguments.shots)
            demo.close()
            bootstrap = os.environ.get("KAFKA_BOOTSTRAP")
            if bootstrap:
                check_login_and_reload(browser, arguments.lictor, bootstrap, folder)
                print("console: check_login_and_reload ok")
            else:
                print("console: the login was not looked at: there is no KAFKA_BOOTSTRAP")
        finally:
            browser.close()
            if demo.process.poll() is None:
                demo.close()


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"console: {error}")
