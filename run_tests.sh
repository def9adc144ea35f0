#!/usr/bin/env bash
# Everything that has to hold before a change is merged, step by step, each with its time. Stops at the first step
# that fails. What the steps wrote is in target/run_tests/. The last line counts the checks: each test of a test
# program, and each other step as one.
#
# Some steps run beside others: the release builds beside the steps in the quick profile, since a compiler is bound by one
# core for much of its time; and beside the process tests, which mostly wait, others of their kind, and at the lowest
# priority what needs nothing but cores.
set -uo pipefail
cd "$(dirname "$0")"

logs=target/run_tests
rm -rf "$logs"
mkdir -p "$logs"
passed=0
failed=0
number=0
started=$SECONDS
# By name: the process groups of steps that run beside others, and where their output goes.
declare -A beside=() logs_beside=()

finish() {
    local name
    for name in "${!beside[@]}"; do
        kill -- "-${beside[$name]}" 2>/dev/null
    done
    echo "total $((SECONDS - started)) s"
    echo "$passed passed, $failed failed"
    exit "$1"
}

trap 'finish 130' INT TERM

# step NAME COMMAND…  runs the command, its output goes to a file; on failure the end of it is shown.
step() {
    local name=$1 begin=$SECONDS
    shift
    new_log "$name"
    printf '%2d  %-44s' "$number" "$name"
    "$@" >"$log" 2>&1
    judge "$name" $? $((SECONDS - begin))
}

# begin NAME COMMAND…  begins a step that runs beside the following ones, until `join NAME`.
begin() {
    local name=$1
    shift
    new_log "$name"
    logs_beside[$name]=$log
    # With job control it is a process group, which can be ended as a whole.
    set -m
    run_beside "$log" "$@" </dev/null &
    beside[$name]=$!
    set +m
}

run_beside() {
    local log=$1 begin=$SECONDS
    shift
    "$@" >"$log" 2>&1
    echo "$? $((SECONDS - begin))" >"$log.result"
}

join() {
    local name=$1 code=1 seconds=0
    log=${logs_beside[$name]}
    printf '    %-44s' "$name"
    wait "${beside[$name]}"
    unset "beside[$name]"
    read -r code seconds <"$log.result"
    judge "$name" "$code" "$seconds"
}

new_log() {
    number=$((number + 1))
    log=$logs/$(printf '%02d' "$number")-${1//[^a-z0-9]/-}.log
}

# judge NAME CODE SECONDS  counts what $log says; ends everything if the step failed.
judge() {
    local name=$1 code=$2 seconds=$3 ok bad
    # Lines of test programs: "test result: ok. 12 passed; 0 failed; …"
    ok=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    bad=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    if ((ok + bad == 0)); then
        if ((code == 0)); then ok=1; else bad=1; fi
    elif ((code != 0 && bad == 0)); then
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    printf '%4d s  %d passed, %d failed\n' "$seconds" "$ok" "$bad"
    if ((code != 0)); then
        tail -n 60 "$log"
        echo "FAILED: $name (exit code $code); all of its output is in $log"
        finish 1
    fi
}

# Shows what the tests of the step before measured.
figures() {
    grep -hE "median|longest gap|idle: |per second|serve|skipped|only |operations failed|same replies|acquisitions" "$log" | grep -vE '^kill |^ *thread' |
        sed -E 's/^test [a-z_]+ \.\.\. //; s/^/      /' || true
}

# The process tests, in two lanes beside each other.
process_tests=(cluster crashes recovery links chaos)
client_tests=(clients errors kvbench redis_differential redis_clients)

# The process tests print what they measure; one at a time, for the sake of the figures. (The long storm is a step.)
process_test() {
    cargo test --test "$1" -- --nocapture --test-threads=1 --skip a_short_storm
}

client_lane() {
    local name
    for name in "${client_tests[@]}"; do
        process_test "$name" || return
    done
}

# Redis' own programs and the client libraries that are not there, as far as this user may install them. The tests skip
# what is missing, and say so.
redis_clients() {
    if ! command -v redis-server >/dev/null && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        apt-get install -y redis-server redis-tools || { apt-get update && apt-get install -y redis-server redis-tools; }
    fi
    if command -v python3 >/dev/null && python3 -m pip --version; then
        [[ -d target/clients/python/redis ]] || python3 -m pip install --quiet --target target/clients/python redis
    fi
    if command -v npm >/dev/null; then
        [[ -d target/clients/node/node_modules/ioredis ]] ||
            npm install --silent --no-save --prefix target/clients/node ioredis redis
    fi
    return 0
}
export LANEKV_REDIS_PY=$PWD/target/clients/python LANEKV_REDIS_NODE=$PWD/target/clients/node

other_tests() {
    local file name
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        [[ " ${process_tests[*]} ${client_tests[*]} readme fuzz " == *" $name "* ]] || printf -- '--test\n%s\n' "$name"
    done
}

# The programs as they are shipped, and the harness of the fuzz targets: cargo makes all programs for it. (Benches have
# been through the compiler's checks with the lints.)
release_builds() {
    cargo test --release --quiet --test fuzz --no-run
}

# A simulator that makes one deliberate mistake at a time has to find each. The seeds that are known to find one come first,
# so the quick profile will do.
every_mistake() {
    cargo build --quiet --features mutations --bin kvsim && cp target/debug/kvsim "$logs/kvsim-with-mistakes" &&
        "$logs/kvsim-with-mistakes" --mutations --runs 20000 --known tests/mistakes.txt
}

# Where everything has to be built anyway, what only helps the next build is left out.
[[ -d target/debug ]] || export CARGO_INCREMENTAL=0

step "format" cargo fmt --check
begin "release builds, beside the above" release_builds
step "lints" cargo clippy --all-targets --quiet -- -D warnings
step "unit tests" cargo test --quiet --lib --bins
step "documentation tests" cargo test --quiet --doc
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
step "simulator finds every mistake" every_mistake
tail -n 1 "$log" | sed 's/^/      /'
join "release builds, beside the above"
# Tests are built in the quick profile; the programs that they start are those built for speed.
export LANEKV_BIN_DIR=target/release
mapfile -t others < <(other_tests)
# Each bench once, so that they do not rot; not those that fill millions of keys.
mapfile -t benches < <(printf -- '--bench\n%s\n' codec log multicast node queue)
step "source rules, other tests, benches" cargo test --quiet "${others[@]}" "${benches[@]}"
# Each seed twice, event by event the same; every rare situation must have come up. The table is in the log.
step "simulator, 20000 seeds, each twice" target/release/kvsim --runs 20000 --twice --coverage
tail -n 1 "$log" | sed 's/^/      /'
begin "fuzzing, 1000000 inputs a target" nice -n 19 env FUZZ_INPUTS=1000000 cargo test --release --test fuzz --quiet
step "chaos, 60 seconds" target/release/kvchaos --seconds 60
tail -n 4 "$log" | sed 's/^/      /'
redis_clients >"$logs/redis-clients.log" 2>&1
# 200,000 commands to a node and to a Redis, in each version of RESP.
export LANEKV_DIFFERENTIAL=200000
begin "processes: clients, Redis" client_lane
for name in "${process_tests[@]}"; do
    step "processes: $name" process_test "$name"
    figures
done
join "processes: clients, Redis"
figures

if ! command -v nc >/dev/null && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    apt-get install -y netcat-openbsd >"$logs/apt-get.log" 2>&1 ||
        { apt-get update && apt-get install -y netcat-openbsd; } >>"$logs/apt-get.log" 2>&1
fi
if command -v nc >/dev/null && nc -h 2>&1 | grep -q -- '-N'; then
    for nodes in 2 3 5; do
        step "nc only, $nodes nodes" tests/nc_two_nodes.sh "$nodes"
    done
else
    echo "    skipped: nc scripts, because netcat-openbsd is not installed and cannot be installed by this user"
fi
step "commands of the readme" cargo test --quiet --test readme
# Without etcd and Redis: kvbench, and the machinery of the comparison with them.
step "comparison, its own machinery" benches/compare/compare.py --smoke --bin-dir target/release
join "fuzzing, 1000000 inputs a target"
finish 0
