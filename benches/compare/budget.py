#!/usr/bin/env python3
"""Where the time of one SET goes: traces a cluster with one client, and prints the steps with their median times.

    benches/compare/budget.py [--seconds 2] [--bin-dir target/release] [--work DIR]

Three nodes on this machine, one connection to node 0, one request at a time. `perf record` notes when each system call
of the nodes and of kvbench begins and ends (it has to be installed and allowed: root, or perf_event_paranoid at -1);
that costs each of them about a microsecond. Each SET is cut out of the trace, from kvbench's send to its receive, and
every step is given as the median of its distance from the beginning.
"""

import argparse
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import servers  # noqa: E402

CALLS = ("recvfrom", "sendto", "pwrite64", "fdatasync", "epoll_wait")
LINE = re.compile(r"^\s*(.+?)\s+(\d+)/(\d+)\s+(\d+\.\d+):\s+syscalls:sys_(enter|exit)_(\w+):\s*(.*)$")

STEPS = [
    ("read", "node 0 has read the command"),
    ("append_sent", "node 0 has sent the entry to both others"),
    ("own_sync_begun", "node 0's log has written its record, sync begins"),
    ("peer_read", "the faster of the others has read the entry"),
    ("peer_sync_begun", "its log has written the record, sync begins"),
    ("peer_synced", "its record is durable"),
    ("own_synced", "node 0's record is durable"),
    ("vote_sent", "its vote is sent"),
    ("last_read", "node 0 has read the Status that was missing"),
    ("reply", "node 0 begins to send the reply"),
    ("end", "kvbench has read it"),
]


def parse(text):
    """[(time in µs, pid, tid, is_exit, call, rest)]"""
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            _, pid, tid, when, kind, call, rest = match.groups()
            yield float(when) * 1e6, int(pid), int(tid), kind == "exit", call, rest


def first(events, after, pid, call, is_exit, main=None):
    """The first such event after a time: its time, or None."""
    for when, p, tid, exits, c, rest in events:
        if when > after and p == pid and c == call and exits == is_exit:
            if main is not None and (tid == pid) != main:
                continue
            if is_exit and call == "recvfrom" and rest.startswith(("-", "0x0", "0xffff")):
                continue
            return when
    return None


def steps(events, begin, end, origin, peers, bench):
    """The steps of the SET in these events; None if it is not as expected."""
    found = {"end": end - begin}
    read = first(events, begin, origin, "recvfrom", True, main=True)
    if read is None:
        return None
    found["read"] = read - begin
    sends = [e[0] for e in events if e[0] > read and e[1] == origin and e[4] == "sendto" and e[3]]
    if len(sends) < 2:
        return None
    found["append_sent"] = sends[1] - begin

    def sync(pid, after):
        write = first(events, after, pid, "pwrite64", False)
        begun = write and first(events, write, pid, "fdatasync", False)
        done = begun and first(events, begun, pid, "fdatasync", True)
        return begun, done

    begun, done = sync(origin, read)
    if begun and done:
        found["own_sync_begun"], found["own_synced"] = begun - begin, done - begin
    votes = []
    for pid in peers:
        taken = first(events, read, pid, "recvfrom", True, main=True)
        begun, done = sync(pid, taken) if taken else (None, None)
        vote = done and first(events, done, pid, "sendto", False, main=True)
        if vote:
            votes.append((vote, taken, begun, done))
    if votes:
        vote, taken, begun, done = min(votes)
        found.update(peer_read=taken - begin, peer_sync_begun=begun - begin, peer_synced=done - begin,
                     vote_sent=vote - begin)
    # The reply is the last thing that node 0 sends before kvbench reads it, and the only one so short.
    replies = [e[0] for e in events if e[1] == origin and e[4] == "sendto" and not e[3] and "len: 0x00000005" in e[5]]
    if not replies:
        return None
    found["reply"] = replies[-1] - begin
    reads = [e[0] for e in events if e[1] == origin and e[4] == "recvfrom" and e[3] and read < e[0] < replies[-1]]
    if reads:
        found["last_read"] = reads[-1] - begin
    return found


def analyse(text, origin, peers, bench):
    events = list(parse(text))
    sends = [index for index, e in enumerate(events) if e[1] == bench and e[4] == "sendto" and not e[3]]
    found = []
    for index, after in zip(sends, sends[1:]):
        window = events[index:after]
        ends = [e[0] for e in window if e[1] == bench and e[4] == "recvfrom" and e[3]]
        if ends:
            cut = steps([e for e in window if e[0] <= ends[0]], window[0][0], ends[0], origin, peers, bench)
            if cut:
                found.append(cut)
    return found


def show(found):
    print(f"{len(found)} SETs; µs from kvbench's send, medians; a step that comes after the reply is not counted\n")
    print("| step | at p50 | seen in |\n| --- | --- | --- |")
    rows = []
    for name, words in STEPS:
        times = [cut[name] for cut in found if name in cut]
        if times:
            rows.append((statistics.median(times), words, len(times)))
    for median, words, count in sorted(rows):
        print(f"| {words} | {median:.0f} | {count / len(found):.0%} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bin-dir", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "budget")
    arguments = parser.parse_args()
    if not shutil.which("perf"):
        sys.exit("budget: perf is not installed")
    tools = {name: arguments.bin_dir.resolve() / name for name in ("kvnode", "kvbench")}
    with servers.Lanekv(arguments.work.resolve() / "servers", tools) as started:
        bench = subprocess.Popen([tools["kvbench"], started.targets()[0], "-c", "1", "--quiet", "--warmup", "1",
                                  "-s", str(arguments.seconds + 1)], stdout=subprocess.DEVNULL)
        time.sleep(1.3)
        data = started.directory / "trace"
        pids = started.pids()
        events = ",".join(f"syscalls:sys_{side}_{call}" for call in CALLS for side in ("enter", "exit"))
        recorded = subprocess.run(["perf", "record", "-q", "-o", data, "-e", events, "-p",
                                   ",".join(map(str, pids + [bench.pid])), "--", "sleep", str(arguments.seconds)])
        bench.wait()
        if recorded.returncode != 0:
            sys.exit("budget: perf cannot record; see above")
        text = subprocess.run(["perf", "script", "-i", data, "-F", "comm,pid,tid,time,event,trace"],
                              capture_output=True, text=True).stdout
    found = analyse(text, pids[0], pids[1:], bench.pid)
    if not found:
        sys.exit("budget: no SET was found in the trace")
    show(found)


if __name__ == "__main__":
    main()
