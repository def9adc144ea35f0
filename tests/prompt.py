"""Types at kvclient's prompt as a person would, several times, and looks at what the screen shows.

Usage: prompt.py KVCLIENT [NODES_CONF]
"""

import os
import pty
import select
import sys
import time

LIMIT = 20.0


class Terminal:
    def __init__(self, argv):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)

    def wait_for(self, text):
        """Reads until `text` appears after what was waited for before."""
        end = time.monotonic() + LIMIT
        while text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                sys.exit(f"{text!r} did not appear, only {self.seen!r}")
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                sys.exit(f"the client left; {text!r} did not appear, only {self.seen!r}")
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text):
        os.write(self.fd, text)

    def exit_code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def with_file(argv):
    first = Terminal(argv)
    first.wait_for(b"lanekv> ")
    first.type(b"set name john\r")
    first.wait_for(b"\nOK\r\n")
    first.wait_for(b"127.0.0.1:")
    first.type(b"auth secret\r")
    first.wait_for(b"\nERR ")
    first.wait_for(b"> ")
    # Ctrl-C gives the line up; what is typed before the next prompt appears may be lost, as in a shell.
    first.type(b"get nothing\x03")
    first.wait_for(b"\r\n")
    first.wait_for(b"> ")
    first.type(b"strl\t")
    first.wait_for(b"strlen")
    first.type(b"\x15\xff")
    first.wait_for(b"not UTF-8")
    first.wait_for(b"> ")
    first.type(b"\x15get name\r")
    first.wait_for(b"\njohn\r\n")
    first.wait_for(b"> ")
    first.type(b"\x04")
    assert first.exit_code() == 0

    second = Terminal([argv[0], "--format", "redis", argv[1]])
    second.wait_for(b"lanekv> ")
    second.type(b"\x1b[A\r")
    second.wait_for(b'\n"john"\r\n')
    second.wait_for(b"> ")
    second.type(b"exit\r")
    assert second.exit_code() == 0


def without_file(argv):
    # On an empty line Ctrl-C leaves, too.
    for count, leave in [(b"1", b"exit\r"), (b"2", b"\x04"), (b"3", b"\x03")]:
        terminal = Terminal(argv)
        terminal.wait_for(b"three nodes run in this process")
        terminal.wait_for(b"lanekv> ")
        terminal.type(b"incr n\r")
        terminal.wait_for(b"\n" + count + b"\r\n")
        terminal.wait_for(b"> ")
        terminal.type(leave)
        assert terminal.exit_code() == 0


arguments = sys.argv[1:]
if len(arguments) > 1:
    with_file(arguments)
else:
    without_file(arguments)
