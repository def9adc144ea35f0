#!/usr/bin/env python3
"""Scripted sessions of redis-py against a running three-node cluster; tests/redis_clients.rs starts it.

Usage: redis_clients.py PORT PORT PORT CLUSTER-PORT CLUSTER-PORT CLUSTER-PORT

A line `KILL n` or `START n` on standard output asks for that; the answer comes on standard input.
"""

import sys
import threading
import time

import redis

ports = [int(port) for port in sys.argv[1:4]]
cluster_ports = [int(port) for port in sys.argv[4:7]]


def client(port, **options):
    return redis.Redis(port=port, socket_timeout=10, **options)


def strings(protocol):
    a, b = client(ports[0], protocol=protocol, decode_responses=True), client(ports[1], protocol=protocol)
    a.flushall()
    assert a.set("k", "v") and b.get("k") == b"v"
    assert a.set("k", "w", nx=True) is None and a.set("k", "w", xx=True, get=True) == "v"
    assert a.set("t", "1", ex=100) and 95 <= b.ttl("t") <= 100
    assert a.incr("n") == 1 and a.incrby("n", 5) == 6 and a.incrbyfloat("f", 1.5) == 1.5
    assert a.mset({"x": "1", "y": "2"}) and b.mget("x", "y", "z") == [b"1", b"2", None]
    assert a.append("k", "!") == 2 and a.getrange("k", 0, 0) == "w" and a.strlen("k") == 2
    assert a.expire("k", 50) and a.persist("k") and a.ttl("k") == -1 and a.ttl("none") == -2
    assert a.rename("x", "xx") and a.exists("x", "xx") == 1 and a.type("xx") == "string"
    assert sorted(a.scan_iter("*")) == sorted(a.keys("*")) and a.dbsize() == len(a.keys("*"))
    assert a.setbit("bits", 7, 1) == 0 and a.getbit("bits", 7) == 1 and a.bitcount("bits") == 1
    assert a.delete("k", "none") == 1 and a.getdel("xx") == "1"
    assert a.restore("copy", 0, b.dump("y")) and a.get("copy") == "2"
    assert a.config_get("databases")["databases"] == "1" and a.info()["role"] == "master"
    assert a.client_setname("me") and a.client_getname() == "me" and a.client_id() > 0
    assert any(c["name"] == "me" for c in a.client_list())
    assert a.ping() and a.echo("x") == "x" and isinstance(a.time()[0], int)
    assert a.command_count() > 80 and a.command()["get"]["arity"] == 2
    assert a.object("encoding", "n") and a.memory_usage("n") > 0
    pipe = a.pipeline(transaction=False)
    for i in range(500):
        pipe.set(f"p{i}", i).get(f"p{i}")
    replies = pipe.execute()
    assert replies[1::2] == [str(i) for i in range(500)]
    try:
        a.execute_command("LPUSH", "l", "1")
        raise AssertionError("there are no lists")
    except redis.ResponseError as error:
        assert "unknown command" in str(error)


def expiry():
    a, b = client(ports[0]), client(ports[1])
    a.set("soon", "1", px=300)
    assert b.get("soon") == b"1" and 0 < b.pttl("soon") <= 300
    begin = time.monotonic()
    while b.get("soon") is not None:
        assert time.monotonic() - begin < 5, "it expires"
        time.sleep(0.01)
    took = time.monotonic() - begin
    assert a.get("soon") is None, "gone everywhere"
    print(f"a key of 300 ms was gone after {took * 1000:.0f} ms")


def transactions():
    a, b = client(ports[0]), client(ports[1])
    a.set("balance", 10)
    with a.pipeline() as pipe:
        pipe.watch("balance")
        balance = int(pipe.get("balance"))
        b.set("balance", 99)
        pipe.multi()
        pipe.set("balance", balance + 1)
        try:
            pipe.execute()
            raise AssertionError("the other node's write was not seen")
        except redis.WatchError:
            pass
    assert b.get("balance") == b"99"

    def increment(pipe):
        pipe.multi()
        pipe.incr("balance").get("balance")

    assert a.transaction(increment, "balance") == [100, b"100"]
    with a.pipeline() as pipe:
        replies = pipe.set("q", 1).incr("q").publish("nobody", "x").execute()
    assert replies == [True, 2, 0], replies


def publish_subscribe(protocol):
    a, b = client(ports[0], protocol=protocol), client(ports[1])
    sub = a.pubsub()
    sub.subscribe("news")
    sub.psubscribe("n*")
    kinds = [sub.get_message(timeout=5)["type"] for _ in range(2)]
    assert kinds == ["subscribe", "psubscribe"], kinds
    assert b.publish("news", "hello") == 0, "those at the other node are not counted"
    messages = [sub.get_message(timeout=5) for _ in range(2)]
    assert sorted(m["type"] for m in messages) == ["message", "pmessage"], messages
    assert all(m["data"] == b"hello" for m in messages)
    assert client(ports[0]).publish("news", "here") == 2
    assert client(ports[0]).pubsub_numsub("news") == [(b"news", 1)]
    sub.close()
    client(ports[0]).config_set("notify-keyspace-events", "KEA")
    sub = a.pubsub()
    sub.psubscribe("__key*__:*")
    assert sub.get_message(timeout=5)["type"] == "psubscribe"
    b.set("watched", 1, px=200)
    seen = []
    begin = time.monotonic()
    while (b"__keyevent@0__:expired", b"watched") not in seen and time.monotonic() - begin < 5:
        message = sub.get_message(timeout=1)
        if message:
            seen.append((message["channel"], message["data"]))
    assert (b"__keyspace@0__:watched", b"set") in seen, seen
    assert (b"__keyevent@0__:expired", b"watched") in seen, seen
    sub.close()
    client(ports[0]).config_set("notify-keyspace-events", "")


def locks():
    """20 contenders at three nodes; inside the lock a counter is read and written without protection."""
    client(ports[0]).set("counter", 0)
    held, errors = [0], []

    def contend(number):
        try:
            mine = client(ports[number % 3])
            for _ in range(3):
                with mine.lock("the-lock", timeout=10, sleep=0.01, blocking_timeout=60):
                    held[0] += 1
                    assert held[0] == 1, "two holders"
                    value = int(mine.get("counter"))
                    mine.set("counter", value + 1)
                    held[0] -= 1
        except Exception as error:  # shown below
            errors.append(repr(error))

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(20)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert int(client(ports[1]).get("counter")) == 60
    print(f"60 acquisitions by 20 contenders took {time.monotonic() - begin:.1f} s")
    a = client(ports[0])
    lock = a.lock("other", timeout=5)
    assert lock.acquire() and lock.extend(5) and lock.reacquire() and lock.owned()
    lock.release()
    first = a.execute_command("LOCK", "fenced", 5000, "me")
    assert client(ports[1]).execute_command("LOCK", "fenced", 5000) is None
    assert a.execute_command("RENEW", "fenced", first, 5000) == 1
    assert a.execute_command("UNLOCK", "fenced", first) == 1
    assert client(ports[2]).execute_command("LOCK", "fenced", 5000) > first


def revisions():
    a = client(ports[0])
    a.delete("r")
    assert a.execute_command("GETREV", "r") == 0
    assert a.execute_command("SET", "r", 1, "IFREV", 0)
    revision = a.execute_command("GETREV", "r")
    assert client(ports[1]).execute_command("SET", "r", 2, "IFREV", revision)
    assert a.execute_command("SET", "r", 3, "IFREV", revision) is None
    assert a.execute_command("DEL", "r", "IFREV", revision) == 0
    assert a.execute_command("SET", "r", 4, "IFEQ", 2) and a.execute_command("DELIFEQ", "r", 4) == 1


def bank(seconds=6):
    """Clients at three nodes move money with WATCH, MULTI and EXEC; a reader adds all accounts up."""
    accounts = [f"account-{i}" for i in range(100)]
    client(ports[0]).mset({account: 100 for account in accounts})
    stop, moved, conflicts, wrong = time.monotonic() + seconds, [0], [0], []

    def move(number):
        mine = client(ports[number % 3])
        step = number * 7919
        while time.monotonic() < stop:
            step = (step * 1103515245 + 12345) & 0x7FFFFFFF
            a, b = accounts[step % 100], accounts[step // 100 % 100]
            if a == b:
                continue
            try:
                with mine.pipeline() as pipe:
                    pipe.watch(a, b)
                    from_a, to_b = int(pipe.get(a)), int(pipe.get(b))
                    pipe.multi()
                    pipe.set(a, from_a - 1).set(b, to_b + 1)
                    pipe.execute()
                    moved[0] += 1
            except redis.WatchError:
                conflicts[0] += 1
            except redis.RedisError:
                time.sleep(0.05)

    def audit(number):
        mine = client(ports[number])
        while time.monotonic() < stop:
            try:
                total = sum(int(value) for value in mine.mget(accounts))
            except redis.RedisError:
                time.sleep(0.05)
                continue
            if total != 10_000:
                wrong.append(total)

    threads = [threading.Thread(target=move, args=(number,)) for number in range(8)]
    threads += [threading.Thread(target=audit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    assert not wrong, f"sums that never were: {wrong[:5]}"
    assert sum(int(value) for value in client(ports[0]).mget(accounts)) == 10_000
    print(f"bank: {moved[0] / seconds:.0f} transfers per second, {conflicts[0]} conflicts, the sum never changed")


class TokenLock:
    """LOCK answers a token, UNLOCK takes it."""

    name = "LOCK"

    def __init__(self, mine, number, ttl):
        self.mine, self.owner, self.ttl = mine, f"contender-{number}", ttl

    def take(self):
        self.token = self.mine.execute_command("LOCK", "resource", int(self.ttl * 1000), self.owner)
        return self.token

    def give_back(self):
        self.mine.execute_command("UNLOCK", "resource", self.token)


class LibraryLock:
    """redis-py's own Lock. The revision of its key is a token: it was written by whoever took the lock."""

    name = "redis-py's Lock"

    def __init__(self, mine, number, ttl):
        self.mine = mine
        self.lock = mine.lock("library-lock", timeout=ttl)

    def take(self):
        if not self.lock.acquire(blocking=False):
            return None
        pipe = self.mine.pipeline()
        owner, token = pipe.get("library-lock").execute_command("GETREV", "library-lock").execute()
        # It may have expired since, and be another one's.
        return token if owner == self.lock.local.token else None

    def give_back(self):
        try:
            self.lock.release()
        except redis.exceptions.LockError:
            # It had expired, or it was released by a request whose answer was lost.
            pass


def contend(kind, seconds=7):
    """20 contenders take a lock, at whatever node answers, while nodes are killed and started again. Nobody gets it
    while another holds it, and tokens rise."""
    ttl, stop = 1.5, time.monotonic() + seconds
    guard, holder, last, taken, errors = threading.Lock(), [None], [0], [0], []

    def run(number):
        at = number
        lock = kind(client(ports[at % 3]), number, ttl)
        while time.monotonic() < stop:
            try:
                asked = time.monotonic()
                token = lock.take()
                if token is None:
                    time.sleep(0.005)
                    continue
                with guard:
                    if holder[0] is not None and time.monotonic() < holder[0]:
                        errors.append(f"two holders, token {token} after {last[0]}")
                    if token <= last[0]:
                        errors.append(f"token {token} after {last[0]}")
                    # Sure to be held until so long after it was asked for.
                    holder[0], last[0] = asked + ttl, token
                    taken[0] += 1
                # Longer than a lock takes that should not have been given to another one.
                time.sleep(0.02)
                with guard:
                    if last[0] == token:
                        holder[0] = None
                lock.give_back()
            except redis.RedisError:
                # Perhaps it was taken for nobody: then it expires.
                at += 1
                lock = kind(client(ports[at % 3]), number, ttl)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    assert not errors, errors
    print(f"{kind.name}: {taken[0]} acquisitions by 20 contenders in {seconds} s with kills, none with two holders")
    assert taken[0] > 20


def cluster(kill):
    """redis-py in cluster mode with a node killed in the middle."""
    nodes = redis.RedisCluster(host="127.0.0.1", port=cluster_ports[0], socket_timeout=5)
    failed = wrong = 0
    for i in range(1500):
        if i == 700:
            kill()
        try:
            nodes.set(f"c{i}", i)
            if nodes.get(f"c{i}") != str(i).encode():
                wrong += 1
        except redis.RedisError:
            failed += 1
    print(f"cluster mode: {failed} of 1500 operations failed, {wrong} were wrong")
    assert failed <= 5 and wrong == 0


def ask(what, answer):
    print(what, flush=True)
    assert sys.stdin.readline().strip() == answer


def main():
    for protocol in (2, 3):
        strings(protocol)
        publish_subscribe(protocol)
    expiry()
    transactions()
    revisions()
    locks()
    for story, killed in (bank(), [2]), (contend(TokenLock), [2, 0]), (contend(LibraryLock), [1, 0]):
        next(story)
        for node in killed:
            time.sleep(1)
            ask(f"KILL {node}", "killed")
            time.sleep(1)
            ask(f"START {node}", "started")
        for _ in story:
            pass
    cluster(lambda: ask("KILL 1", "killed"))
    print("all sessions ended well")


main()
