#!/usr/bin/env python3
"""What a key costs in memory, beside Redis, and how long large commands hold the loop.

    benches/memory.py [--keys N ...] [--key-len N] [--value-len N] [--bin-dir DIR] [--out DIR]
                      [--rounds N] [--no-turns]

1. One node, and then one Redis without persistence, get the same `--keys` keys. The resident bytes of the process before
   and after, divided by the keys, less the bytes of key and value, are what each key costs besides.
2. On the node's full store: large commands one after the other, and the longest turn of the loop with each. A virtual
   machine's memory may be slow to reach at times (seen: tens of microseconds for a cache line, or for a page that the
   system gives to a process, for minutes), which no processor time leaves out. So this program reads random pages of its
   own, and takes new ones, before and after each command, waits for the memory to be as fast as it was, and asks once
   more when it was not so afterwards and the command only reads. The host may also stop a virtual processor at a single
   instruction (seen: for 10 to 13 ms, at one that reads memory), and that counts as processor time too. So all is done
   `--rounds` times, and the table has the median of them and the worst.

Figures go to DIR/memory.md. Needs nothing but python3, redis-server and the release build.
"""

import argparse
import datetime
import mmap
import os
import pathlib
import random
import re
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "compare"))
import servers  # noqa: E402

#: Commands that are sent before their replies are read.
DEPTH = 2_000
#: A client that asks for a large answer and gets nothing for so long gives up.
PATIENCE = 120.0
#: So many seconds suffice to free all keys.
FREED_AFTER = 10
#: Commands that may be repeated without a change.
READS = ("DBSIZE", "RANDOMKEY", "KEYS", "SCAN", "MGET", "EXISTS")


class Node(servers.Lanekv):
    """One node, whose log is written but not synced; it takes snapshots as it always does."""

    nodes = 1

    def spawn(self, name, command):
        super().spawn(name, [*command, "--sync", "never"])


class Redis(servers.System):
    name = "redis"
    programs = ("redis-server",)

    def start(self):
        self.ports = servers.free_ports(1)
        self.spawn("redis", [self.program("redis-server"), "--port", str(self.ports[0]), "--save", "",
                             "--appendonly", "no"])


class HostMemory:
    """How fast the machine's memory is: so many reads of random pages of a gigabyte that nobody else uses, and so many
    new pages."""

    LENGTH = 1 << 30
    READS = 600
    NEW_PAGES = 1_000
    #: So many times the least is quiet still.
    SLACK = 2.0
    #: Seconds to wait for that, in all for a command.
    PATIENCE = 3.0

    def __init__(self):
        self.pages = self.mapped(self.LENGTH)
        for at in range(0, self.LENGTH, mmap.PAGESIZE):
            self.pages[at] = 1
        probes = [self.probe() for _ in range(20)]
        self.least = tuple(min(figures) for figures in zip(*probes))

    @staticmethod
    def mapped(length):
        return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def probe(self):
        """Milliseconds of processor time, of the reads and of the new pages."""
        places = [random.randrange(self.LENGTH) for _ in range(self.READS)]
        new = self.mapped(self.NEW_PAGES * mmap.PAGESIZE)
        begun = time.thread_time_ns()
        for at in places:
            self.pages[at]
        read = time.thread_time_ns()
        for page in range(self.NEW_PAGES):
            new[page * mmap.PAGESIZE] = 1
        written = time.thread_time_ns()
        new.close()
        return (read - begun) / 1e6, (written - read) / 1e6

    def is_quiet(self, took):
        self.least = tuple(map(min, self.least, took))
        return all(figure <= least * self.SLACK for figure, least in zip(took, self.least))

    def wait(self, deadline):
        while not self.is_quiet(took := self.probe()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return took


class Connection:
    """RESP, as much of it as is needed here."""

    def __init__(self, port):
        deadline = time.monotonic() + servers.PATIENCE
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.reader = self.socket.makefile("rb", 1 << 20)

    def reply(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else self.reader.read(length + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"-":
            raise RuntimeError(rest.decode(errors="replace"))
        return int(rest) if kind == b":" else rest

    def send(self, *arguments):
        words = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def ask(self, *arguments):
        self.send(*arguments)
        return self.reply()

    def info(self):
        text = self.ask("INFO").decode(errors="replace")
        return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.M))


def key(number, length):
    return b"key:%0*d" % (length - 4, number)


def load(connection, keys, key_len, value_len):
    value = b"v" * value_len
    for begin in range(0, keys, DEPTH):
        count = min(DEPTH, keys - begin)
        connection.socket.sendall(b"".join(
            b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (key_len, key(n, key_len), value_len, value)
            for n in range(begin, begin + count)))
        expected = 5 * count
        answer = connection.reader.read(expected)
        if answer != b"+OK\r\n" * count:
            raise RuntimeError(f"not all was written: {answer[:200]}")


def resident(pid):
    fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def settled(pid, quiet):
    """Resident bytes once they have not changed for a while."""
    last, since = resident(pid), time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(0.2)
        now = resident(pid)
        if abs(now - last) > 1 << 20:
            last, since = now, time.monotonic()
    return resident(pid)


def wait_until_serving(connection):
    def serves():
        try:
            return connection.ask("SET", "probe", "x") == b"OK" and connection.ask("DEL", "probe") == 1
        except RuntimeError:
            return False
    servers.wait_for("a node that takes writes", serves)


def measure(system, keys, arguments):
    """Bytes for each key besides those of key and value: as the system sees them, and as it counts them."""
    connection = Connection(system.ports[0])
    wait_until_serving(connection)
    before = settled(system.pids()[0], 1)
    counted = int(connection.info().get("used_memory", 0))
    load(connection, keys, arguments.key_len, arguments.value_len)
    if connection.ask("DBSIZE") != keys:
        raise RuntimeError("other keys than were written")
    after = settled(system.pids()[0], 3)
    counted = int(connection.info().get("used_memory", 0)) - counted
    payload = arguments.key_len + arguments.value_len
    return connection, after / (1 << 20), (after - before) / keys - payload, counted / keys - payload


def large_commands(connection, keys, arguments):
    """What memory costs at best, and the lines of a table."""
    some = [key(n * 7 % keys, arguments.key_len) for n in range(min(keys, 60_000))]
    pairs = [word for name in some[:30_000] for word in (name, b"w" * arguments.value_len)]
    commands = [
        ("an idle second", None),
        ("DBSIZE", ["DBSIZE"]),
        ("RANDOMKEY", ["RANDOMKEY"]),
        ("KEYS, one of 100 fits", ["KEYS", "*00"]),
        ("KEYS, all fit", ["KEYS", "*"]),
        ("SCAN, COUNT 1,000,000", ["SCAN", "0", "COUNT", "1000000"]),
        ("MGET of 60,000 keys", ["MGET", *some]),
        ("EXISTS of 60,000 keys", ["EXISTS", *some]),
        ("MSET of 30,000 keys", ["MSET", *pairs]),
        ("DEL of 60,000 keys", ["DEL", *some]),
        ("BGSAVE and 30,000 SETs, one key each", "snapshot"),
        ("50,000 keys expire in the same millisecond", "expire"),
        ("FLUSHALL", "flush"),
        ("FLUSHALL during a snapshot", "flush during a snapshot"),
        ("SCAN and DEL of what it finds, until nothing is left", "scan and delete"),
    ]
    memory = HostMemory()
    rows = {name: [] for name, _ in commands}
    for round in range(arguments.rounds):
        if round > 0:
            load(connection, keys, arguments.key_len, arguments.value_len)
            wait_for_snapshot(connection)
        for name, command in commands:
            # What only reads may be asked again.
            is_read = command is None or command[0] in READS
            if command in ("flush during a snapshot", "scan and delete"):
                load(connection, keys, arguments.key_len, arguments.value_len)
            deadline = time.monotonic() + memory.PATIENCE
            while True:
                before = memory.wait(deadline)
                note, *row = large_command(connection, keys, arguments, command)
                after = memory.probe()
                is_quiet = memory.is_quiet(before) and memory.is_quiet(after)
                if is_quiet or not is_read or time.monotonic() >= deadline:
                    break
            row += map(max, before, after)
            rows[name].append((note, row))
            print("round {} of {}: {}{}: longest turn {:.1f} ms, {:.1f} ms of processor time, answered after {:.2f} s; "
                  "reads of memory {:.2f} ms, new pages {:.2f} ms".format(round + 1, arguments.rounds, name, note, *row), flush=True)
    print("at best, reads of memory {:.2f} ms, new pages {:.2f} ms".format(*memory.least), flush=True)
    return memory.least, [summary(name, of_rounds) for name, of_rounds in rows.items()]


def summary(name, rounds):
    """A line of the table: the median of the rounds, and the worst where it is something else."""
    notes, rows = zip(*rounds)
    cells = []
    for digits, figures in zip((1, 1, 2, 2, 2), zip(*rows)):
        median, worst = (f"{figure:.{digits}f}" for figure in (statistics.median(figures), max(figures)))
        cells.append(median if median == worst else f"{median} ({worst})")
    return f"| {name}{notes[0]} | " + " | ".join(cells) + " |"


def wait_for_snapshot(connection):
    servers.wait_for("the end of a snapshot", lambda: connection.info()["rdb_bgsave_in_progress"] == "0", PATIENCE)


def large_command(connection, keys, arguments, command):
    """What came instead of an answer; the longest turn in milliseconds by the clock and of processor time; seconds until
    the answer."""
    note = ""
    if command == "flush":
        wait_for_snapshot(connection)
    connection.ask("CONFIG", "RESETSTAT")
    begun = time.monotonic()
    if command is None:
        time.sleep(1)
    elif command == "snapshot":
        connection.ask("BGSAVE")
        for begin in range(0, 30_000, DEPTH):
            for n in range(begin, begin + DEPTH):
                connection.send("SET", key(n * 7919 % keys, arguments.key_len), b"x" * arguments.value_len)
            for _ in range(DEPTH):
                connection.reply()
    elif command == "expire":
        at = int(time.time() * 1000) + 3_000
        for begin in range(0, 50_000, DEPTH):
            for n in range(begin, begin + DEPTH):
                connection.send("SET", b"mortal:%d" % n, b"x", "PXAT", at)
            for _ in range(DEPTH):
                connection.reply()
        connection.ask("CONFIG", "RESETSTAT")
        time.sleep(5)
    elif command == "scan and delete":
        cursor = b"0"
        while True:
            cursor, found = connection.ask("SCAN", cursor, "COUNT", DEPTH)
            if found:
                connection.ask("DEL", *found)
            if cursor == b"0":
                break
    elif command in ("flush", "flush during a snapshot"):
        if command != "flush":
            connection.ask("BGSAVE")
        connection.ask("FLUSHALL")
    else:
        try:
            connection.ask(*command)
        except RuntimeError as error:
            note = f" ({str(error).split(',')[0]})"
    seconds = time.monotonic() - begun
    # What is freed or sent afterwards counts too.
    frees = command in ("flush", "flush during a snapshot", "scan and delete")
    if frees:
        wait_for_snapshot(connection)
    time.sleep(FREED_AFTER if frees else 1)
    info = connection.info()
    clock, cpu = (int(info[field]) / 1000 for field in ("longest_turn_us", "longest_turn_cpu_us"))
    return note, clock, cpu, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--key-len", type=int, default=16)
    parser.add_argument("--value-len", type=int, default=64)
    parser.add_argument("--bin-dir", default="target/release")
    parser.add_argument("--out", default="docs/benchmarks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-turns", action="store_true")
    parser.add_argument("--no-redis", action="store_true")
    arguments = parser.parse_args()
    tools = {"kvnode": pathlib.Path(arguments.bin_dir).resolve() / "kvnode"}
    lines = ["# Memory and large commands", "",
             f"Taken on {datetime.date.today()} by `benches/memory.py`, {os.cpu_count()} cores. Keys of {arguments.key_len} "
             f"bytes, values of {arguments.value_len}.", "",
             "Resident memory of the process, and what of it each key takes besides the bytes of key and value: as the "
             "system counts it, and as `used_memory` of INFO does. A node also keeps the end of its log in memory, some 35 MiB "
             "whatever the number of keys, and what snapshots made it copy leaves gaps.", "",
             "| keys | system | resident, MiB | bytes per key besides | the same by `used_memory` |",
             "| --- | --- | --- | --- | --- |"]
    turns = []
    kinds = [Node] if arguments.no_redis else [Node, Redis]
    with tempfile.TemporaryDirectory() as scratch:
        for keys in arguments.keys:
            for kind in kinds:
                kind.find(tools)
                with kind(pathlib.Path(scratch) / kind.name, tools) as system:
                    connection, mib, besides, counted = measure(system, keys, arguments)
                    line = f"| {keys:,} | {kind.name} | {mib:.0f} | {besides:.1f} | {counted:.1f} |"
                    print(line, flush=True)
                    lines.append(line)
                    if kind is Node and not arguments.no_turns:
                        turns.append((keys, large_commands(connection, keys, arguments)))
    if turns:
        lines += ["", "By the clock a turn contains what the scheduler and the host take; in processor time it does not. How much "
                  "work a turn may do is counted by tests (`node/tests/long.rs`, "
                  "`node/tests/apply.rs`)."]
    for keys, (least, rows) in turns:
        lines += ["", f"Longest turn of the loop with {keys:,} keys, until a second after the answer, until all is freed for FLUSHALL: the median of "
                  f"{arguments.rounds} rounds, and the worst of them where that is another figure. The last columns "
                  f"are what {HostMemory.READS} reads of random pages and {HostMemory.NEW_PAGES:,} new pages cost another process before or "
                  "after, whichever was more; at best they take {:.2f} and {:.2f} ms. Where it is much more, the machine's memory "
                  "was slow for everybody:".format(*least), "",
                  "| command | by the clock, ms | processor time, ms | answered after, s | reads of memory, ms | new pages, ms |",
                  "| --- | --- | --- | --- | --- | --- |"]
        lines += rows
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
