"""Instances of lictor as processes, each with a bounded share of a core."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup/cpu")
# Short, so that an instance stands still for some milliseconds at a time and not for a tenth of a second.
PERIOD_US = 20_000
SCRAPE_LIMIT_S = 5


class Share:
    """A cgroup (version 1) whose processes get at most so much of a core together."""

    def __init__(self, name, cores):
        self._folder = CGROUPS / f"lictor-scale-{os.getpid()}-{name}"
        try:
            self._folder.mkdir()
            (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._folder / "cpu.cfs_quota_us").write_text(str(round(cores * PERIOD_US)))
        except OSError as error:
            sys.exit(f"a share of a core is a cgroup of version 1 at {CGROUPS}, made by root: {error}")

    def within(self, command):
        """The command line that runs `command` in it."""
        return ["sh", "-c", f'echo $$ >{self._folder}/cgroup.procs; exec "$@"', "sh", *command]

    def throttled_s(self):
        """For how long its processes wanted to run and were not let."""
        lines = (self._folder / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["throttled_time"]) / 1e9

    def remove(self):
        self._folder.rmdir()


class Instance:
    """One instance at work; it ends with us, however we end."""

    def __init__(self, engine, place, name, cores):
        self.name, self._port = name, _free_port()
        self._share = Share(name, cores)
        command = ["setpriv", "--pdeathsig", "KILL", *map(str, engine.command(place, False)),
                   "--instance", name, "--http", f"127.0.0.1:{self._port}"]
        self._log = (place.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._share.within(command), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True)

    def is_alive(self):
        return self._process.poll() is None

    def metrics(self):
        """Series, as they are written, to value; none while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=SCRAPE_LIMIT_S) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        return {series: float(value) for series, value in (
            line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))}

    def cpu_s(self):
        return cpu_s(self._process.pid)

    def threads_cpu_s(self):
        """Processor time by what threads are called."""
        spent = {}
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                spent[name] = spent.get(name, 0) + _cpu_s(task)
            except OSError:
                pass  # It has ended.
        return spent

    def throttled_s(self):
        return self._share.throttled_s()

    def peak_rss_mib(self):
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def tell_to_stop(self):
        """As a supervisor does; it has some work left then."""
        os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self):
        """Ends it, if it has not ended yet."""
        if self.is_alive():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._share.remove()


def cpu_s(pid):
    """Processor time of a process."""
    return _cpu_s(Path(f"/proc/{pid}"))


def _cpu_s(folder):
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def total(metrics, name, label=""):
    """The sum of a metric's series whose labels contain `label`."""
    is_it = lambda series: series.split("{")[0] == name and label in series
    return sum(value for series, value in metrics.items() if is_it(series))


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
