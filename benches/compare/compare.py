#!/usr/bin/env python3
"""Compares lanekv with etcd and Redis, side by side on this machine, and writes docs/benchmarks/.

    benches/compare/compare.py              # everything: about half an hour on two cores
    benches/compare/compare.py --rounds 3 --only set,get
    benches/compare/compare.py --smoke      # its own machinery, without etcd and Redis, for run_tests.sh

Needs python3 without packages, cargo, and the programs etcd and redis-server, which it installs with apt-get if it may.
Each sample is a file below target/compare/samples: interrupt it at any time, and the next start goes on there.
`--fresh` begins anew. Samples are taken in rounds, all systems after one another in each.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DOCS = ROOT / "docs" / "benchmarks"
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import report  # noqa: E402
import servers  # noqa: E402
from loads import CORE, FLOOR, LANEKV, LOADS, ONE  # noqa: E402

#: A node is killed after this part of the measured time, which is so long at least that etcd has a leader again
#: within it.
KILL_AT = 0.35
KILL_SECONDS_MIN = 6.0
INTERVAL_MS = 20
WARMUP = 1.0


def say(text):
    print(text, file=sys.stderr, flush=True)


def busy(seconds=0.3):
    """The part of the processors' time that is in use."""
    def times():
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = times()
    time.sleep(seconds)
    total_after, idle_after = times()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_for_quiet(patience):
    """Waits a while for others to finish; returns how busy they are."""
    deadline = time.monotonic() + patience
    while True:
        found = busy()
        if found < 0.1 or time.monotonic() >= deadline:
            return found


def install(names, may_install):
    """Installs what is missing; returns the systems that can be run."""
    classes = {name: servers.ALL[name] for name in names if name in servers.ALL}
    packages = sorted({cls.package for cls in classes.values()
                       if cls.package and not all(shutil.which(program) for program in cls.programs)})
    if packages and may_install and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' '.join(packages)}")
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Packages may start what they bring; here it would only be in the way.
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
        if subprocess.run(command, env=environment, **quiet).returncode != 0:
            subprocess.run(["apt-get", "update"], **quiet)
            subprocess.run(command, env=environment, **quiet)
    return classes


class Bench:
    """Takes samples."""

    def __init__(self, arguments, bin_dir):
        self.arguments = arguments
        self.tools = {name: bin_dir / name for name in ("kvnode", "kvbench")}
        self.work = arguments.work
        self.samples = self.work / "samples"
        self.samples.mkdir(parents=True, exist_ok=True)
        self.taken = 0

    def path(self, load, system, number):
        name = f"{load.name}-{system}-{number}".lower()
        return self.samples / ("".join(c if c.isalnum() else "-" for c in name) + ".json")

    def kvbench(self, *flags):
        return [str(self.tools["kvbench"]), *map(str, flags), "--json", "-", "--quiet"]

    def sample(self, load, system, number):
        """Takes a sample unless it is there."""
        path = self.path(load, system, number)
        if path.exists():
            return
        before = wait_for_quiet(self.arguments.quiet_wait)
        begun = time.time()
        if system == FLOOR:
            seconds = max(0.1, self.arguments.seconds / 4)
            extra = {"result": self.json(self.kvbench("--floor", "-s", seconds, "--dir", self.work))}
        elif system == CORE:
            extra = {"result": self.core()}
        else:
            with servers.ALL[system](self.work / "servers", self.tools) as started:
                measure = self.measure_kill if load.kind == "kill" else self.measure
                extra = measure(load, started)
                if load.kind != "kill":
                    started.check()
        sample = {"load": load.name, "system": system, "round": number, "begun": round(begun),
                  "seconds_wanted": self.arguments.seconds, "busy_before": round(before, 3), **extra}
        # Either all of it is there or nothing.
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(sample))
        partial.replace(path)
        self.taken += 1
        result = extra["result"]
        rate = result["results"][0]["per_second"] if "results" in result else result.get("per_second")
        told = f"{rate:,.0f} a second" if rate else ""
        if load.kind == "kill":
            told += f", gap {result['results'][0]['longest_gap_ms']:.0f} ms"
        say(f"{number + 1}  {load.words:<44} {system:<20} {told}  ({time.time() - begun:.0f} s, busy {before:.0%})")

    def json(self, command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return json.loads(done.stdout)

    def flags(self, load, started, seconds=None):
        return ["--dialect", started.dialect, "-s", seconds or self.arguments.seconds, "--warmup",
                min(WARMUP, self.arguments.seconds), *load.flags, *started.extra_flags()]

    def measure(self, load, started):
        pids = ",".join(map(str, started.pids()))
        return {"result": self.json(self.kvbench(*started.targets(), *self.flags(load, started), "--pid", pids))}

    def measure_kill(self, load, started):
        """Kills a node under way; clients are at the others."""
        victim = started.victim()
        survivors = [address for index, address in enumerate(started.targets()) if index != victim]
        timeline = self.work / "timeline.csv"
        seconds = self.arguments.seconds if self.arguments.smoke else max(self.arguments.seconds, KILL_SECONDS_MIN)
        command = self.kvbench(*survivors, *self.flags(load, started, seconds), "--timeline", timeline,
                               "--interval", INTERVAL_MS)
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        warmup = min(WARMUP, self.arguments.seconds)
        try:
            time.sleep(warmup + seconds * KILL_AT)
            started.kill(victim)
            killed_at = time.monotonic() - begun - warmup
            out, error = process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {error.strip()}")
        lines = timeline.read_text().splitlines()[1:]
        timeline.unlink()
        curve = [(float(fields[0]), int(fields[1])) for fields in (line.split(",") for line in lines)]
        return {"result": json.loads(out), "timeline": curve, "interval_ms": INTERVAL_MS,
                "killed_at_s": round(killed_at, 3)}

    def core(self):
        """The criterion bench of the core; its own mean."""
        subprocess.run(["cargo", "bench", "--quiet", "--bench", "multicast", "--", "3-nodes-all-senders/256"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        found = target / "criterion" / "multicast_3-nodes-all-senders" / "256" / "new" / "estimates.json"
        nanos = json.loads(found.read_text())["mean"]["point_estimate"]
        return {"per_second": 256e9 / nanos}

    def all(self):
        return [json.loads(path.read_text()) for path in sorted(self.samples.glob("*.json"))]


def about(systems, tools, arguments):
    """What has to be known about the machine and the programs."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    commit = git("describe", "--always")
    if git("status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock"):
        commit += " with changes"
    versions = {cls(".", tools).version() for cls in systems.values()}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} × {model}, Linux {platform.release()}",
        "programs": "; ".join(sorted(filter(None, versions))) + f"; lanekv's commit {commit or 'unknown'}",
        "rounds": f"{arguments.rounds}, each {arguments.seconds:g} s a sample after {WARMUP:g} s of warm-up",
        "to repeat": "`benches/compare/compare.py --fresh`",
    }


def compare(arguments, bin_dir, without_peers=False):
    bench = Bench(arguments, bin_dir)
    loads = [load for load in LOADS if not arguments.only or load.name in arguments.only]
    wanted = {system for load in loads for system in load.systems}
    if without_peers:
        wanted &= {LANEKV, ONE, FLOOR}
    systems = install(wanted, arguments.install)
    for name, cls in list(systems.items()):
        try:
            cls.find(bench.tools)
        except servers.Missing as missing:
            say(f"without {name}: {missing}")
            del systems[name]
    for number in range(arguments.rounds):
        for load in loads:
            present = [s for s in load.systems if s in systems or (s in (FLOOR, CORE) and s in wanted)]
            # Whoever comes first has the coolest machine.
            for system in present[number % len(present):] + present[:number % len(present)] if present else []:
                bench.sample(load, system, number)
    samples = bench.all()
    report.write(arguments.out, samples, about(systems, bench.tools, arguments))
    return bench, samples


def smoke(arguments, bin_dir):
    """A short run of everything but the peers, and of the resuming of it."""
    report.self_test()
    arguments.work = arguments.work / "smoke"
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.out = arguments.work / "out"
    arguments.rounds, arguments.seconds, arguments.install, arguments.quiet_wait = 1, 0.5, False, 0
    bench, samples = compare(arguments, bin_dir, without_peers=True)
    loads = [load for load in LOADS if load.kind != "core"]
    assert bench.taken == len(samples) >= len(loads), f"{bench.taken} samples taken, {len(samples)} found"
    for sample in samples:
        if "results" in sample["result"]:
            assert sample["result"]["results"][0]["operations"] > 0, sample
            assert sample["result"]["lost_connections"] == 0, sample
    again, same = compare(arguments, bin_dir, without_peers=True)
    assert again.taken == 0 and same == samples, "what is there is not taken again"
    text = (arguments.out / "results.md").read_text()
    for load in loads:
        assert f"| {load.words} | lanekv |" in text, load.words
    for name in ("throughput.svg", "latency.svg", "cpu.svg", "kill.svg"):
        xml.etree.ElementTree.parse(arguments.out / name)
    shutil.rmtree(arguments.work)
    print(f"compare: {len(samples)} samples, tables and plots")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="samples of each load and system [5]")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of a sample [5]")
    parser.add_argument("--only", type=lambda text: text.split(","), help="loads: " + ",".join(l.name for l in LOADS))
    parser.add_argument("--fresh", action="store_true", help="forget samples of earlier runs")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="[docs/benchmarks]")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "compare",
                        help="samples and data directories; the disk that is measured [target/compare]")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="built programs [builds them]")
    parser.add_argument("--quiet-wait", type=float, default=30.0,
                        help="before a sample, wait at most so many seconds for a quiet machine [30]")
    parser.add_argument("--no-install", dest="install", action="store_false", help="install nothing")
    parser.add_argument("--smoke", action="store_true", help="test this script, without peers")
    arguments = parser.parse_args()
    unknown = set(arguments.only or []) - {load.name for load in LOADS}
    if unknown or arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error(f"no load is called {', '.join(unknown)}" if unknown else "rounds and seconds must be above 0")
    arguments.work, arguments.out = arguments.work.resolve(), arguments.out.resolve()
    bin_dir = arguments.bin_dir and arguments.bin_dir.resolve()
    if not bin_dir:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        bin_dir = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    if arguments.smoke:
        smoke(arguments, bin_dir)
        return
    if arguments.fresh:
        shutil.rmtree(arguments.work / "samples", ignore_errors=True)
    _, samples = compare(arguments, bin_dir)
    if arguments.out == DOCS:
        report.write_readme(ROOT / "README.md", samples, json.loads((DOCS / "results.json").read_text())["about"])
    say(f"written: {arguments.out / 'results.md'}")


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # However it is ended, the servers end with it. (A shell's background job does not hear SIGINT by itself.)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, interrupt)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the next start goes on from here")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"compare: {error}")
