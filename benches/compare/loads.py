"""Which loads are put on which systems, and what is wanted of the figures.

A load is a name, words for the tables, flags of kvbench, and the systems that it is put on. A target compares one
figure of lanekv with one of something else, both from the same round.
"""

from dataclasses import dataclass

LANEKV, ONE = "lanekv", "lanekv, 1 node"
ETCD, LEADER = "etcd", "etcd, at its leader"
REDIS, REPLICAS = "Redis always", "Redis + 2, WAIT 1"
FLOOR, CORE = "floor", "core"
#: How many servers share the work.
SERVERS = {LANEKV: 3, ONE: 1, ETCD: 3, LEADER: 3, REDIS: 1, REPLICAS: 3}


@dataclass(frozen=True)
class Load:
    name: str
    words: str
    flags: tuple
    systems: tuple
    #: kill: one node is killed under way, and clients are at the others.
    kind: str = "load"


LOADS = [
    Load("set", "SET, 64 connections", ("-c", "64"), (LANEKV, ETCD, LEADER, REDIS, REPLICAS, ONE)),
    Load("set-pipelined", "SET, 64 connections × 16", ("-c", "64", "-P", "16"), (LANEKV, REDIS, ETCD)),
    Load("get", "GET linearizable, 64 connections", ("-c", "64", "--mix", "get", "--fill", "--keys", "20000"),
         (LANEKV, ETCD, LEADER, REDIS)),
    Load("get-pipelined", "GET linearizable, 64 connections × 16",
         ("-c", "64", "-P", "16", "--mix", "get", "--fill", "--keys", "20000"), (LANEKV, REDIS)),
    Load("set-4k", "SET of 4 KiB, 64 connections", ("-c", "64", "--value-len", "4096", "--keys", "10000"),
         (LANEKV, REDIS, ETCD)),
    Load("set-alone", "SET, 1 connection", ("-c", "1"), (FLOOR, LANEKV, ETCD, REDIS)),
    Load("kill", "kill -9 of a node, SET at the others", ("-c", "64", "--tolerate"), (LANEKV, ETCD), kind="kill"),
    Load("multicast", "multicast in the core, 3 nodes, batches of 256", (), (CORE,), kind="core"),
]

#: How a figure is found in what kvbench said.
METRICS = {
    "per_second": ("a second", lambda s: s["results"][0]["per_second"]),
    "p50": ("µs at p50", lambda s: s["results"][0]["latency_us"]["p50"]),
    "p99": ("µs at p99", lambda s: s["results"][0]["latency_us"]["p99"]),
    "gap": ("ms without a write", lambda s: s["results"][0]["longest_gap_ms"]),
    "cpu": ("µs of CPU each", lambda s: s["server_cpu_us"]),
    "floor": ("µs", lambda s: s["round_trip"]["latency_us"]["p50"] + s["append"]["latency_us"]["p50"]),
}


@dataclass(frozen=True)
class Target:
    load: str
    metric: str
    #: Systems that are compared with; the best of them counts.
    against: tuple
    #: lanekv's figure divided by the other's is to be at least, or at most, this.
    sense: str
    bound: float
    other_metric: str = ""


ETCDS = (ETCD, LEADER)
TARGETS = [
    Target("set", "per_second", ETCDS, "at least", 8),
    Target("set", "p99", ETCDS, "at most", 1 / 5),
    Target("set", "per_second", (REDIS,), "at least", 0.7),
    Target("set-pipelined", "per_second", (REDIS,), "at least", 0.7),
    Target("set", "per_second", (REPLICAS,), "at least", 1.3),
    Target("get", "per_second", ETCDS, "at least", 4),
    Target("get-pipelined", "per_second", (REDIS,), "at least", 0.5),
    Target("set-4k", "per_second", (REDIS,), "at least", 0.6),
    Target("set-alone", "p50", (FLOOR,), "at most", 2.0, other_metric="floor"),
    Target("kill", "gap", (ETCD,), "at most", 1 / 20),
    Target("set", "cpu", ETCDS, "at most", 1 / 8),
]

#: Commands a second that the core delivers on three nodes, all of them on one core.
CORE_WANTED = 3e6
