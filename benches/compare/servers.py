"""The systems that are compared: how each is started, with the same durability, on free ports of loopback.

Every write is on the disk of a majority (lanekv, etcd), or of the one server (Redis with appendfsync always), before
it is answered. A system is started anew for each sample, with an empty directory, and stopped after it, so that none
is measured beside another.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.request

PATIENCE = 60.0


class Missing(Exception):
    """A program that is needed is not installed."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {patience:.0f} s")
        time.sleep(0.02)


class System:
    """Some processes that make one system."""

    name = ""
    dialect = "resp"
    #: Programs that have to be there.
    programs = ()
    #: The package that brings them, for apt-get.
    package = None
    nodes = 3

    def __init__(self, directory, tools):
        self.directory = pathlib.Path(directory)
        self.tools = tools
        self.processes = []
        self.ports = []
        self.logs = []

    @classmethod
    def find(cls, tools):
        for program in cls.programs:
            if not (tools.get(program) or shutil.which(program)):
                raise Missing(f"{program} is not installed" + (f" (package {cls.package})" if cls.package else ""))

    def program(self, name):
        return str(self.tools.get(name) or shutil.which(name))

    def spawn(self, name, command):
        log = open(self.directory / f"{name}.log", "wb")
        self.logs.append(log)
        environment = dict(os.environ, ETCD_UNSUPPORTED_ARCH=os.uname().machine)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   cwd=self.directory, env=environment)
        self.processes.append(process)

    def check(self):
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError(f"{self.name}: a server ended with code {process.returncode}; "
                                   f"its log is in {self.directory}")

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        try:
            self.start()
            self.check()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
        for log in self.logs:
            log.close()

    def kill(self, index):
        self.processes[index].kill()
        self.processes[index].wait()

    def pids(self):
        return [process.pid for process in self.processes]

    def targets(self):
        """Where clients connect to."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    def victim(self):
        """The node whose death hurts most."""
        return len(self.processes) - 1

    def extra_flags(self):
        return []

    def version(self):
        return ""


class Lanekv(System):
    name = "lanekv"
    programs = ("kvnode",)

    def start(self):
        self.ports = free_ports(self.nodes)
        conf = self.directory / "nodes.conf"
        conf.write_text("".join(f"{id} 127.0.0.1:{port}\n" for id, port in enumerate(self.ports)))
        for id in range(self.nodes):
            self.spawn(f"node-{id}", [self.program("kvnode"), str(id), str(conf),
                                      "--data-dir", str(self.directory / f"data-{id}")])
        for id in range(self.nodes):
            log = self.directory / f"node-{id}.log"
            wait_for(f"lanekv's node {id}", lambda: self.check() or b"ready " in log.read_bytes())
        # Every node has said that it is ready; give the last seal a moment to make all of them senders.
        time.sleep(0.3)

    def version(self):
        return subprocess.run([self.program("kvnode"), "--version"], capture_output=True, text=True).stdout.strip()


class LanekvOne(Lanekv):
    """One node alone: what replication costs, by difference."""

    name = "lanekv, 1 node"
    nodes = 1


class Etcd(System):
    name = "etcd"
    dialect = "etcd"
    programs = ("etcd",)
    package = "etcd-server"

    def start(self):
        ports = free_ports(2 * self.nodes)
        self.ports, peers = ports[:self.nodes], ports[self.nodes:]
        cluster = ",".join(f"n{id}=http://127.0.0.1:{port}" for id, port in enumerate(peers))
        for id in range(self.nodes):
            client, peer = f"http://127.0.0.1:{self.ports[id]}", f"http://127.0.0.1:{peers[id]}"
            self.spawn(f"etcd-{id}", [
                self.program("etcd"), "--name", f"n{id}", "--data-dir", str(self.directory / f"data-{id}"),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", cluster, "--initial-cluster-state", "new",
                "--quota-backend-bytes", str(8 << 30), "--log-level", "error", "--logger", "zap"])
        wait_for("etcd's leader", lambda: self.check() or self.leader() is not None)

    def statuses(self):
        for port in self.ports:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v3/maintenance/status", data=b"{}")
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    yield json.load(answer)
            except OSError:
                yield {}

    def leader(self):
        """The index of the leader, once all know it."""
        statuses = list(self.statuses())
        leaders = {status.get("leader", "0") for status in statuses}
        members = [status.get("header", {}).get("member_id") for status in statuses]
        if len(leaders) != 1 or leaders == {"0"}:
            return None
        leader = leaders.pop()
        return members.index(leader) if leader in members else None

    def victim(self):
        return self.leader()

    def version(self):
        out = subprocess.run([self.program("etcd"), "--version"], capture_output=True, text=True).stdout
        return out.splitlines()[0] if out else ""


class EtcdLeader(Etcd):
    """All connections at the leader: nothing has to be passed on to it."""

    name = "etcd, at its leader"

    def targets(self):
        return [f"127.0.0.1:{self.ports[self.leader()]}"]


class Redis(System):
    name = "Redis always"
    programs = ("redis-server",)
    package = "redis-server"
    nodes = 1

    def start(self):
        ports = free_ports(self.nodes)
        self.ports = ports[:1]
        for id, port in enumerate(ports):
            data = self.directory / f"data-{id}"
            data.mkdir()
            command = [self.program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data),
                       "--save", "", "--appendonly", "yes", "--appendfsync", "always",
                       # No rewriting in between: it would only make Redis slower.
                       "--auto-aof-rewrite-percentage", "0", "--repl-diskless-sync-delay", "0"]
            if id > 0:
                command += ["--replicaof", "127.0.0.1", str(ports[0])]
            self.spawn(f"redis-{id}", command)
        for id, port in enumerate(ports):
            wanted = b"master_link_status:up" if id > 0 else b"redis_version"
            wait_for(f"Redis {id}", lambda: self.check() or wanted in self.info(port))

    def info(self, port):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"*1\r\n$4\r\nINFO\r\n")
                answer = b""
                while b"# Keyspace" not in answer:
                    more = connection.recv(65536)
                    if not more:
                        break
                    answer += more
                return answer
        except OSError:
            return b""

    def version(self):
        out = subprocess.run([self.program("redis-server"), "--version"], capture_output=True, text=True).stdout
        return " ".join(out.split()[:3])


class RedisReplicas(Redis):
    """Two replicas; a write is done when one of them has it. (A replica says so before its own sync.)"""

    name = "Redis + 2, WAIT 1"
    nodes = 3

    def extra_flags(self):
        return ["--wait", "1"]


ALL = {system.name: system for system in (Lanekv, LanekvOne, Etcd, EtcdLeader, Redis, RedisReplicas)}
