#!/usr/bin/env python3
"""redis-cli as a person uses it, on a pseudo-terminal, against a running three-node cluster; tests/redis_clients.rs
starts it.

Usage: redis_cli.py PORT PORT PORT

A line `KILL n` or `START n` on standard output asks for that; the answer comes on standard input.
"""

import os
import pty
import re
import select
import signal
import sys
import tempfile
import time

ports = sys.argv[1:4]
PATIENCE = 20
# What a terminal is told about colours and the cursor.
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")
home = tempfile.TemporaryDirectory()


class Terminal:
    """A redis-cli on a terminal of its own. What it has shown is read up to the text that is waited for."""

    def __init__(self, *arguments):
        self.command = ["redis-cli", *arguments]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # A dumb terminal: no cursor to be moved about. The history is nobody's.
            os.environ.update(TERM="dumb", HOME=home.name)
            # A job in the background has inherited that it is ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execvp("redis-cli", self.command)
        self.shown = b""

    def wait_for(self, text):
        """What was shown before this text; the text is passed over."""
        text, deadline = text.encode(), time.monotonic() + PATIENCE
        while text not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0 and self.read(left), f"{self.command}: {text!r} does not come after {self.shown!r}"
        before, self.shown = self.shown.split(text, 1)
        return before.decode()

    def read(self, patience):
        if not select.select([self.fd], [], [], patience)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            # The end of a terminal.
            return False
        self.shown = ESCAPES.sub(b"", self.shown + data)
        return bool(data)

    def type(self, line):
        os.write(self.fd, line.encode() + b"\r")
        # The terminal shows what is typed.
        self.wait_for(line + "\n")

    def interrupt(self):
        os.write(self.fd, b"\x03")

    def end(self):
        """Waits until the program has ended by itself; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.read(max(0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, f"{self.command} does not end"
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def prompt(port, protocol):
    cli = Terminal("-p", port, *protocol)
    ready, within = f"127.0.0.1:{port}> ", f"127.0.0.1:{port}(TX)> "
    cli.wait_for(ready)

    def ask(line, before=ready):
        cli.type(line)
        return cli.wait_for(before).rstrip("\n")

    assert ask("set name john") == "OK"
    assert ask("get name") == '"john"'
    assert ask(r'set raw "a\x00b\n"') == "OK" and ask("get raw") == r'"a\x00b\n"'
    assert ask("get nothing") == "(nil)"
    assert ask("incr name") == "(error) ERR value is not an integer or out of range"
    said = ask("lpush list 1")
    assert said == "(error) ERR unknown command 'lpush', with args beginning with: 'list' '1' ", said
    assert ask("get") == "(error) ERR wrong number of arguments for 'get' command"
    assert ask("mget name nothing") == '1) "john"\n2) (nil)'
    # Hints and help come from COMMAND DOCS, so this server's own commands have them.
    said = ask("help lock")
    assert "LOCK name ttl-milliseconds [owner]" in said, said
    assert ask("multi", within) == "OK"
    assert ask("set n 1", within) == "QUEUED" and ask("incr n", within) == "QUEUED"
    assert ask("exec") == "1) OK\n2) (integer) 2"
    assert ask("multi", within) == "OK" and ask("discard") == "OK"
    assert ask("2 incr n") == "(integer) 3\n(integer) 4"
    cli.type("quit")
    assert cli.end() == 0


def subscriber(port, protocol):
    cli, other = Terminal("-p", port, *protocol), Terminal("-p", ports[1])
    for terminal, at in (cli, port), (other, ports[1]):
        terminal.wait_for(f"127.0.0.1:{at}> ")
    cli.type("subscribe news")
    cli.wait_for('1) "subscribe"\n2) "news"\n3) (integer) 1\n')
    other.type("publish news hello")
    other.wait_for("(integer) 0\n")
    cli.wait_for('1) "message"\n2) "news"\n3) "hello"\n')
    cli.interrupt()
    other.type("exit")
    assert other.end() == 0
    os.close(cli.fd)
    os.waitpid(cli.pid, 0)


def statistics(port):
    """`--stat` until it has shown a line of figures for three seconds, `--latency-history` for two."""
    cli = Terminal("-p", port, "--stat", "-i", "0.1")
    cli.wait_for("keys       mem      clients blocked requests            connections")
    figures = re.compile(r"^\d+ +\S+ +\d+ +0 +\d+ \(\+\d+\) +\d+ *$")
    for _ in range(3):
        cli.wait_for("\n")
        line = cli.wait_for("\n").strip()
        cli.shown = b"\n" + cli.shown
        assert figures.match(line), line
    cli.interrupt()
    cli.end()
    cli = Terminal("-p", port, "--latency-history", "-i", "1")
    for _ in range(2):
        cli.wait_for("seconds range\n")
    cli.interrupt()
    cli.end()


def lost(port):
    """A node that is killed and comes back: the prompt says so, and goes on by itself."""
    cli = Terminal("-p", port)
    cli.wait_for(f"127.0.0.1:{port}> ")
    ask_for("KILL 2", "killed")
    cli.type("get name")
    cli.wait_for("not connected> ")
    cli.type("get name")
    cli.wait_for("Connection refused")
    cli.wait_for("not connected> ")
    ask_for("START 2", "started")
    cli.type("get name")
    cli.wait_for('"john"\n')
    cli.wait_for(f"127.0.0.1:{port}> ")
    cli.type("quit")
    assert cli.end() == 0


def ask_for(what, answer):
    print(what, flush=True)
    assert sys.stdin.readline().strip() == answer


for options in [], ["-3"]:
    prompt(ports[0], options)
    subscriber(ports[2], options)
statistics(ports[0])
lost(ports[2])
print("all sessions at the prompt ended well")
