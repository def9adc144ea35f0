#!/usr/bin/env bash
# Talks to a cluster with nc only: what is set at one node is read at another at once.
#
#   tests/nc_two_nodes.sh [NODES]      2 nodes unless told otherwise
#
# The nodes listen on ports 9000, 9001 …; when one of them is taken, on the next hundred that is free.
# KVNODE names the program, target/release/kvnode unless told otherwise. There is no sleep between a write and a read.
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=${1:-2}
kvnode=${KVNODE:-target/release/kvnode}
dir=$(mktemp -d)
pids=()

finish() {
    local code=$?
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait
    if ((code != 0)); then
        tail -n 20 "$dir"/log-* >&2 || true
    fi
    rm -rf "$dir"
}
trap finish EXIT

fail() {
    echo "nc_two_nodes.sh: $*" >&2
    exit 1
}

nc -h 2>&1 | grep -q -- '-N' || fail "this nc has no -N; netcat-openbsd has"

taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

all_free() {
    local i
    for ((i = 0; i < nodes; i++)); do
        if taken $((base + i)); then return 1; fi
    done
}

base=9000
until all_free; do
    base=$((base + 100))
    ((base < 20000)) || fail "no free ports from 9000 on"
done
((base == 9000)) || echo "ports from 9000 on are taken, using $base"

for ((i = 0; i < nodes; i++)); do
    echo "$i 127.0.0.1:$((base + i))"
done >"$dir/nodes.conf"

for ((i = 0; i < nodes; i++)); do
    "$kvnode" "$i" "$dir/nodes.conf" --data-dir "$dir/node-$i" >"$dir/ready-$i" 2>"$dir/log-$i" &
    pids+=($!)
done
for ((i = 0; i < nodes; i++)); do
    for ((wait = 0; wait < 200; wait++)); do
        if grep -q '^ready ' "$dir/ready-$i"; then break; fi
        kill -0 "${pids[$i]}" 2>/dev/null || fail "node $i ended before it was ready"
        sleep 0.1
    done
    grep -q '^ready ' "$dir/ready-$i" || fail "node $i is not ready after 20 s"
done

# Sends one command to a node, prints the reply.
ask() {
    printf '%s\n' "$2" | nc -N -w 10 127.0.0.1 $((base + $1))
}

checks=0
# Sends one command to a node and compares the reply.
expect() {
    local reply
    reply=$(ask "$1" "$2") || fail "nc failed for $2 at node $1"
    [[ $reply == "$3" ]] || fail "node $1 answered '$reply' to '$2', expected '$3'"
    checks=$((checks + 1))
}

last=$((nodes - 1))
users=(alice bob carol dave eve)
cities=(london paris tokyo lima oslo)

for i in 0 1 2 3 4; do expect 0 "SET user$((i + 1)) ${users[$i]}" OK; done
for ((node = 1; node < nodes; node++)); do
    for i in 0 1 2 3 4; do expect "$node" "GET user$((i + 1))" "${users[$i]}"; done
done
for i in 0 1 2 3 4; do expect "$last" "SET city$((i + 1)) ${cities[$i]}" OK; done
for ((node = 0; node < last; node++)); do
    for i in 0 1 2 3 4; do expect "$node" "GET city$((i + 1))" "${cities[$i]}"; done
done
expect 0 "SET user1 alicia" OK
for ((node = 1; node < nodes; node++)); do expect "$node" "GET user1" alicia; done
for ((i = 0; i < 30; i++)); do expect 0 "SET key$i value$i" OK; done
for ((node = 1; node < nodes; node++)); do
    for ((i = 0; i < 30; i++)); do expect "$node" "GET key$i" "value$i"; done
done
for ((node = 0; node < nodes; node++)); do expect "$node" "GET nothing" "Not Found"; done

# Several commands on one connection whose sending side is shut down at once: every reply still comes.
replies=$(printf 'SET a 1\nGET a\nINCR a\nGET nothing\n' | nc -N -w 10 127.0.0.1 "$base")
[[ $replies == $'OK\n1\n2\nNot Found' ]] || fail "half-closed connection: got '$replies'"
checks=$((checks + 1))

echo "$nodes nodes on ports $base to $((base + last)), by nc only: $checks replies, all right"
