#!/usr/bin/env python3
"""Runs for years, in minutes: many small writes to three nodes, while disk and memory are watched.

    benches/endurance.py [--writes N] [--keys N] [--away N] [--bin-dir DIR] [--out DIR]

1. `--writes` small writes to `--keys` keys. Disk and memory of each node are drawn over time: they must become flat.
2. `--turns` writes without snapshots (`--snapshot-log` at its highest) and with them, in turn, three times each: the longest
   turn of the loop, by the clock, which contains what other processes take on a machine with fewer processors than
   processes, and in processor time of the loop itself.
3. `--away` writes with three nodes; one node is stopped; as many writes later it is started again under full load: how long
   until it sends again, and what the clients of the other nodes lose meanwhile.

Figures go to DIR/endurance.md, plots beside it. Needs nothing but python3 and the release build.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "compare"))
import servers  # noqa: E402
import svg  # noqa: E402

MIB = 1 << 20


def info(port):
    """INFO as a dictionary; empty if the node does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"INFO\r\nQUIT\r\n")
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
    except OSError:
        return {}
    return dict(re.findall(r"^(\w+):(.*?)\r?$", data.decode(errors="replace"), re.M))


class Cluster(servers.Lanekv):
    def __init__(self, directory, tools, flags=()):
        super().__init__(directory, tools)
        self.flags = flags

    def spawn(self, name, command):
        super().spawn(name, [*command, *self.flags])

    def usage(self):
        """Bytes on disk and in memory, by node."""
        result = []
        for id, process in enumerate(self.processes):
            disk = 0
            for path in (self.directory / f"data-{id}").glob("*"):
                try:
                    disk += path.stat().st_blocks * 512
                except FileNotFoundError:
                    pass
            try:
                fields = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()
                memory = int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
            except (FileNotFoundError, ProcessLookupError, IndexError):
                memory = 0
            result.append((disk, memory))
        return result

    def index(self):
        return int(info(self.ports[0]).get("index", 0))

    def longest_turn_ms(self, field="longest_turn_us"):
        return max(int(info(port).get(field, 0)) for port in self.ports) / 1000


def load(bench, targets, seconds, keys, out):
    command = [bench, *targets, "-c", "32", "-P", "32", "-s", f"{seconds}", "--warmup", "0", "--keys", str(keys),
               "--value-len", "16", "--quiet", "--tolerate", "--json", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_until(cluster, bench, targets, writes, keys, watch, scratch):
    """Load until the index is there, in pieces of 20 s; `watch` is called each second."""
    begun = time.monotonic()
    while (before := cluster.index()) < writes:
        process = load(bench, targets, 20, keys, scratch)
        while process.poll() is None:
            time.sleep(1)
            watch(time.monotonic() - begun)
            if cluster.index() >= writes:
                process.terminate()
                process.wait()
        if cluster.index() == before:
            raise RuntimeError(f"nothing was written; the logs are in {cluster.directory}")
        print(f"\r{cluster.index() / 1e6:.1f} M of {writes / 1e6:.1f} M writes", end="", file=sys.stderr)
    print(file=sys.stderr)
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=50_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=5_000_000)
    parser.add_argument("--away", type=int, default=5_000_000)
    parser.add_argument("--bin-dir", default="target/release")
    parser.add_argument("--out", default="docs/benchmarks")
    arguments = parser.parse_args()
    binaries = pathlib.Path(arguments.bin_dir).resolve()
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    tools = {name: binaries / name for name in ("kvnode", "kvbench")}
    bench = str(tools["kvbench"])
    lines = ["# Endurance", "", f"Taken on {datetime.date.today()} by `benches/endurance.py`, {os.cpu_count()} cores.", ""]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        samples = []
        with Cluster(scratch / "on", tools) as cluster:
            watch = lambda at: samples.append((at, cluster.usage()))
            seconds = write_until(cluster, bench, cluster.targets(), arguments.writes, arguments.keys, watch, scratch / "load.json")
            written = cluster.index()
            taken = info(cluster.ports[0]).get("snapshots_taken")
            length = info(cluster.ports[0]).get("snapshot_bytes")
            turn_on = cluster.longest_turn_ms()
        half = [usage for at, usage in samples if at > seconds / 2]
        disk = max(d for usage in half for d, _ in usage) / MIB
        memory = max(m for usage in half for _, m in usage) / MIB
        first = [usage for at, usage in samples if at <= seconds / 2]
        disk_first = max(d for usage in first for d, _ in usage) / MIB
        memory_first = max(m for usage in first for _, m in usage) / MIB
        for name, which in (("disk", 0), ("memory", 1)):
            series = [(f"node {id}", [(at, usage[id][which] / MIB) for at, usage in samples]) for id in range(3)]
            title = f"{name} of three nodes under {written / 1e6:.0f} million writes to {arguments.keys} keys"
            (out / f"endurance-{name}.svg").write_text(svg.lines(title, "seconds", "MiB", series))
        print(f"{written} writes in {seconds:.0f} s, disk {disk:.0f} MiB, memory {memory:.0f} MiB", file=sys.stderr)
        turns = longest_turns(arguments, tools, bench, scratch)
        lines += [
            f"{written / 1e6:.1f} million SETs of 16 bytes to {arguments.keys} keys in {seconds:.0f} s, "
            f"{taken} snapshots of {int(length or 0) / MIB:.1f} MiB at each node.", "",
            "| most of any node | first half | second half |", "| --- | --- | --- |",
            f"| disk, MiB | {disk_first:.0f} | {disk:.0f} |", f"| memory, MiB | {memory_first:.0f} | {memory:.0f} |", "",
            f"Longest turn of the loop meanwhile, by the clock: {turn_on:.1f} ms.", "",
            f"Longest turns of {arguments.turns / 1e6:.1f} million writes each, in the order in which they were measured:", "",
            "| snapshots | by the clock, ms | processor time, ms |", "| --- | --- | --- |",
            *(f"| {count} | {clock:.1f} | {cpu:.1f} |" for count, clock, cpu in turns), "",
            "By the clock a turn contains what other processes and threads take: three nodes and the load share "
            f"{os.cpu_count()} processors here.", "",
            "![disk](endurance-disk.svg)", "", "![memory](endurance-memory.svg)", "",
        ]
        lines += away(arguments, tools, bench, scratch)
    (out / "endurance.md").write_text("\n".join(lines) + "\n")
    print(f"written to {out / 'endurance.md'}", file=sys.stderr)


def longest_turns(arguments, tools, bench, scratch):
    """Without snapshots and with them, in turn: how many were taken, and the longest turns in milliseconds."""
    result = []
    for round in range(6):
        flags = ("--snapshot-log", str(1 << 40)) if round % 2 == 0 else ()
        with Cluster(scratch / f"turns-{round}", tools, flags) as cluster:
            write_until(cluster, bench, cluster.targets(), arguments.turns, arguments.keys, lambda at: None, scratch / "load.json")
            taken = info(cluster.ports[0]).get("snapshots_taken", "?")
            result.append((taken, cluster.longest_turn_ms(), cluster.longest_turn_ms("longest_turn_cpu_us")))
    return result


def away(arguments, tools, bench, scratch):
    """A node is away for many writes, and comes back under full load."""
    with Cluster(scratch / "away", tools) as cluster:
        targets = cluster.targets()[:2]
        # As many writes as it will miss, so that all three have snapshots, for the rate with three nodes.
        begun = cluster.index()
        seconds = write_until(cluster, bench, targets, arguments.away, arguments.keys, lambda at: None, scratch / "load.json")
        with_three = (cluster.index() - begun) / seconds
        cluster.kill(2)
        gone = cluster.processes.pop()
        assert gone.poll() is not None
        target = cluster.index() + arguments.away
        write_until(cluster, bench, targets, target, arguments.keys, lambda at: None, scratch / "load.json")
        rates, stop = [], threading.Event()

        def measure():
            last, at = cluster.index(), time.monotonic()
            while not stop.is_set():
                time.sleep(0.5)
                index, now = cluster.index(), time.monotonic()
                rates.append((now, (index - last) / (now - at)))
                last, at = index, now

        process = load(bench, targets, 40, arguments.keys, scratch / "away.json")
        thread = threading.Thread(target=measure)
        thread.start()
        time.sleep(8)
        started = time.monotonic()
        conf = cluster.directory / "nodes.conf"
        cluster.spawn("node-2", [cluster.program("kvnode"), "2", str(conf), "--data-dir",
                                 str(cluster.directory / "data-2")])
        sends = None
        while process.poll() is None and sends is None:
            fields = info(cluster.ports[2])
            if fields.get("sender") == "1":
                sends = time.monotonic() - started
            time.sleep(0.05)
        installed = info(cluster.ports[2]).get("snapshots_installed", "?")
        process.wait()
        stop.set()
        thread.join()
        mean = lambda values: sum(values) / max(len(values), 1)
        before = mean([rate for at, rate in rates if started - 7 < at <= started])
        during = mean([rate for at, rate in rates if started < at <= started + (sends or 40)])
        after = mean([rate for at, rate in rates if started + (sends or 40) < at <= started + 25])
        if sends is None:
            return [f"A node that was away for {arguments.away / 1e6:.1f} million writes did not send again within the load."]
        rows = [("three nodes, before", with_three), ("two nodes, one away", before), ("while it came back", during),
                ("three nodes again", after)]
        return [
            f"A node that was away for {arguments.away / 1e6:.1f} million writes was started under full load: a sender again "
            f"after {sends:.1f} s ({installed} snapshots installed). What the clients of the other two got meanwhile:", "",
            "| | SETs a second | of those with three nodes |", "| --- | --- | --- |",
            *(f"| {name} | {rate:.0f} | {100 * rate / with_three:.0f} % |" for name, rate in rows), "",
            f"The load and the nodes share {os.cpu_count()} processors, so two nodes get more of them than three.",
        ]


if __name__ == "__main__":
    main()
