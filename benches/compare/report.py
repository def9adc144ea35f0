"""From samples to tables and plots.

A figure is the median over the rounds. A ratio is the median of the rounds' ratios: what disturbs a machine for
minutes disturbs both sides of a round alike.
"""

import json
import statistics

import svg
from loads import CORE, CORE_WANTED, ETCD, FLOOR, LANEKV, LEADER, LOADS, METRICS, REDIS, SERVERS, TARGETS

NOT_MEASURED = "not measured"


def group(samples):
    """{(load, system): {round: kvbench's result}}"""
    grouped = {}
    for sample in samples:
        grouped.setdefault((sample["load"], sample["system"]), {})[sample["round"]] = sample["result"]
    return grouped


def figure(rounds, metric):
    """The median over the rounds; None if there is nothing."""
    values = [value for value in (METRICS[metric][1](result) for result in rounds.values()) if value is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs, metric, other_metric):
    """The median of the ratios of rounds in which both were measured."""
    ratios = []
    for number in sorted(ours.keys() & theirs.keys()):
        left, right = METRICS[metric][1](ours[number]), METRICS[other_metric][1](theirs[number])
        if left is not None and right:
            ratios.append(left / right)
    return statistics.median(ratios) if ratios else None


def show(value):
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def show_bound(target):
    if target.bound < 1 and abs(round(1 / target.bound) - 1 / target.bound) < 1e-9 and target.sense == "at most":
        return f"at most 1/{round(1 / target.bound)}"
    return f"{target.sense} {target.bound:g}"


def judge(grouped):
    """For each target: what is compared, both figures, the ratio, and whether it is met (None: not measured)."""
    rows = []
    words = {load.name: load.words for load in LOADS}
    for target in TARGETS:
        other_metric = target.other_metric or target.metric
        ours = grouped.get((target.load, "lanekv"), {})
        found = []
        for system in target.against:
            theirs = grouped.get((target.load, system), {})
            value = ratio(ours, theirs, target.metric, other_metric)
            if value is not None:
                found.append((value, system, figure(theirs, other_metric)))
        worst = min if target.sense == "at least" else max
        if found:
            value, system, other = worst(found)
            met = value >= target.bound if target.sense == "at least" else value <= target.bound
        else:
            value, system, other, met = None, target.against[0], None, None
        rows.append({"load": words[target.load], "metric": METRICS[target.metric][0], "against": system,
                     "ours": figure(ours, target.metric) if ours else None, "theirs": other, "ratio": value,
                     "wanted": show_bound(target), "met": met})
    core = grouped.get(("multicast", CORE), {})
    rate = statistics.median(r["per_second"] for r in core.values()) if core else None
    rows.append({"load": words["multicast"], "metric": "commands a second", "against": "–", "ours": rate,
                 "theirs": None, "ratio": None, "wanted": f"at least {CORE_WANTED / 1e6:g} million",
                 "met": None if rate is None else rate >= CORE_WANTED})
    return rows


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def targets_table(grouped):
    verdict = {True: "yes", False: "**no**", None: NOT_MEASURED}
    return table(
        ["load", "figure", "lanekv", "against", "there", "ratio", "wanted", "met"],
        [[row["load"], row["metric"], show(row["ours"]), row["against"], show(row["theirs"]), show(row["ratio"]),
          row["wanted"], verdict[row["met"]]] for row in judge(grouped)])


def figures_table(grouped):
    rows = []
    for load in LOADS:
        for system in load.systems:
            rounds = grouped.get((load.name, system))
            if not rounds or system in (FLOOR, CORE):
                continue
            median = lambda get: show(statistics.median(map(get, rounds.values())))
            latency = lambda name: median(lambda s: s["results"][0]["latency_us"][name])
            errors = sum(s["results"][0]["errors"] for s in rounds.values())
            rows.append([load.words, system, show(figure(rounds, "per_second")), latency("p50"), latency("p99"),
                         latency("p999"), latency("max"), show(figure(rounds, "gap")), show(figure(rounds, "cpu")),
                         median(lambda s: s["own_cpu_us"]), str(errors), str(len(rounds))])
    return table(["load", "system", "a second", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "gap ms",
                  "servers' CPU µs each", "kvbench's CPU µs each", "errors", "rounds"], rows)


def shares_table(grouped):
    """How often the servers alone could do an operation in the same processor time."""
    rows = []
    for load in LOADS:
        ours = grouped.get((load.name, LANEKV))
        if not ours or load.kind != "load":
            continue
        for system in load.systems:
            theirs = grouped.get((load.name, system))
            # What the other costs, in units of what lanekv costs.
            times = ratio(theirs, ours, "cpu", "cpu") if theirs and system in SERVERS and system != LANEKV else None
            if times is None:
                continue
            ours_each, theirs_each = figure(ours, "cpu"), figure(theirs, "cpu")
            alone = times * SERVERS[LANEKV] / SERVERS[system]
            rows.append([load.words, system, show(ours_each), show(theirs_each), show(times),
                         show(ours_each / SERVERS[LANEKV]), show(theirs_each / SERVERS[system]), show(alone)])
    return table(["load", "against", "lanekv, µs", "there, µs", "so lanekv does", "one node, µs",
                  "one server there, µs", "so a node does"], rows)


def floor_table(grouped):
    rounds = grouped.get(("set-alone", FLOOR))
    if not rounds:
        return NOT_MEASURED + "\n"
    rows = []
    for name, words in (("round_trip", "round trip of 64 B over loopback"),
                        ("append", "4 KiB appended, fdatasync"),
                        ("overwrite", "4 KiB into a file of zeros, fdatasync"),
                        ("together", "4 KiB appended, fdatasync, three at once")):
        median = lambda q: show(statistics.median(s[name]["latency_us"][q] for s in rounds.values()))
        rows.append([words] + [median(q) for q in ("min", "p50", "p99", "max")])
    return table(["µs", "min", "p50", "p99", "max"], rows)


def plots(samples, grouped):
    """{file name: SVG}"""
    systems = []
    for load in LOADS:
        systems += [s for s in load.systems if s not in systems and s not in (FLOOR, CORE)]

    def bars(title, unit, metric, loads):
        groups = []
        for load in LOADS:
            if load.name not in loads:
                continue
            row = {}
            for system in load.systems:
                rounds = grouped.get((load.name, system))
                value = figure(rounds, metric) if rounds and system not in (FLOOR, CORE) else None
                if value:
                    row[system] = value
            if row:
                groups.append((load.words, row))
        shown = [s for s in systems if any(s in row for _, row in groups)]
        return svg.bars(title, unit, groups, shown)

    usual = [load.name for load in LOADS if load.kind == "load"]
    out = {
        "throughput.svg": bars("Throughput", "operations a second, more is better", "per_second",
                               [name for name in usual if name != "set-alone"]),
        "latency.svg": bars("Latency at p99", "µs, less is better", "p99", usual),
        "cpu.svg": bars("Processor time of the servers", "µs an operation, less is better", "cpu", ["set", "get"]),
    }
    series, marks = [], []
    for system in ("lanekv", "etcd"):
        kills = [s for s in samples if s["load"] == "kill" and s["system"] == system and s.get("timeline")]
        if not kills:
            continue
        # The round in the middle, by its gap.
        kills.sort(key=lambda s: s["result"]["results"][0]["longest_gap_ms"])
        chosen = kills[len(kills) // 2]
        interval = chosen["interval_ms"]
        series.append((system, [(begin / 1e3, count * 1e3 / interval) for begin, count in chosen["timeline"]]))
        marks.append(chosen["killed_at_s"])
    mark = (statistics.mean(marks), "kill -9") if marks else None
    out["kill.svg"] = svg.lines("Writes a second at the survivors when a node is killed (etcd: its leader)",
                                "seconds", "writes a second", series, mark)
    return out


def write(out, samples, about):
    """Writes results.md, results.json and the plots into a directory."""
    out.mkdir(parents=True, exist_ok=True)
    grouped = group(samples)
    for name, content in plots(samples, grouped).items():
        (out / name).write_text(content)
    (out / "results.json").write_text(json.dumps({"about": about, "samples": samples}, indent=1) + "\n")
    busy = statistics.median(s["busy_before"] for s in samples) if samples else 0
    noise = (f"Before a sample, other programs kept {busy:.0%} of the processors busy (median over the samples)."
             + (" **The machine was shared: take the ratios for hints and measure again.**" if busy > 0.1 else ""))
    facts = "\n".join(f"- {name}: {value}" for name, value in about.items())
    (out / "results.md").write_text(f"""# lanekv, etcd and Redis side by side

Written by `benches/compare/compare.py`, which also repeats it. Do not edit.

{facts}

{noise}

## Targets

Figures are medians over the rounds, ratios are medians of the ratios of the rounds. With several forms of the same
system, the one that makes the ratio worse for lanekv counts.

{targets_table(grouped)}
![throughput](throughput.svg)

![latency](latency.svg)

![processor time](cpu.svg)

![a node is killed](kill.svg)

## With the shares of others taken out

Servers and kvbench share the processors of one machine, which most loads keep busy. What the servers alone could do is
seen from their processor time for an operation: first of all servers of a system together, without kvbench's share;
then of one of them, without its peers' either, as if each had a machine of its own (and disks and networks were free).
*So lanekv does* so many operations in the time in which the other does one.

{shares_table(grouped)}
## All figures

{figures_table(grouped)}
## The floor of this machine

{floor_table(grouped)}
## What is compared

- Values have 64 bytes unless said otherwise, keys 16. All servers and kvbench share one machine, over loopback.
- Everything is durable before it is answered: on a majority of the nodes in lanekv and etcd, on the one server in
  Redis with `appendfsync always`. `Redis + 2, WAIT 1` sends SET and WAIT together, which is the best case for it.
- Connections are spread over all nodes of lanekv and etcd; *etcd, at its leader* has all of them at the leader.
- kvbench speaks RESP to lanekv and Redis, and to etcd the gRPC of its own clients, unary calls over one HTTP/2
  connection for each of the 64: the JSON gateway is not used.
- A system is started anew with an empty directory for each sample, and is alone on the machine then. Rounds go through
  all loads and systems, so what changes slowly hits all alike.
- Reads of etcd are linearizable. Those of Redis are what they are.
- *gap* is the longest time without an answer. When a node is killed, it is etcd's leader, or any node of lanekv (it has
  no leader), and all clients are at the others.
""")


#: Between these lines of the README is what `short_table` gives.
BEGIN, END = "<!-- written by benches/compare/compare.py -->", "<!-- up to here -->"


def short_table(grouped, about):
    """What a reader of the README wants to know first."""
    etcd = lambda load: LEADER if (load, LEADER) in grouped else ETCD
    rows = []
    for load, metric in (("set", "per_second"), ("set-pipelined", "per_second"), ("get", "per_second"),
                         ("get-pipelined", "per_second"), ("set-4k", "per_second"), ("set-alone", "p50"),
                         ("kill", "gap")):
        words = next(known.words for known in LOADS if known.name == load)
        row = [f"{words}: {METRICS[metric][0]}"]
        for system in (LANEKV, etcd(load), REDIS):
            rounds = grouped.get((load, system))
            row.append(show(figure(rounds, metric)) if rounds else "–")
        rows.append(row)
    header = ["", "lanekv, three nodes", "etcd, three nodes", "Redis, one server, `appendfsync always`"]
    return (f"{BEGIN}\n\n{table(header, rows)}\n![throughput](docs/benchmarks/throughput.svg)\n\n"
            f"Measured on {about['date']} on {about['machine'].split(', ')[0]}, which servers and load share.\n\n{END}")


def write_readme(readme, samples, about):
    """Puts the short table where the README has a place for it."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + short_table(group(samples), about) + after)


def self_test():
    """Made-up samples must give the ratios that one can work out by head."""
    def result(rate, p99=1.0, cpu=1.0):
        latency = {name: p99 for name in ("mean", "min", "p50", "p90", "p99", "p999", "max")}
        return {"results": [{"per_second": rate, "latency_us": latency, "longest_gap_ms": 1.0, "errors": 0}],
                "server_cpu_us": cpu, "own_cpu_us": 1.0}

    samples = []
    for number, (ours, theirs) in enumerate([(100, 10), (60, 10), (900, 100)]):
        for system, rate in (("lanekv", ours), ("etcd", theirs)):
            samples.append({"load": "set", "system": system, "round": number, "result": result(rate),
                            "busy_before": 0.0})
    grouped = group(samples)
    first = judge(grouped)[0]
    assert (first["ours"], first["theirs"], first["ratio"], first["met"]) == (100, 10, 9.0, True), first
    assert judge(grouped)[2]["met"] is None, "Redis was not measured"
    samples.append({"load": "set", "system": "etcd, at its leader", "round": 0, "result": result(50),
                    "busy_before": 0.0})
    short = short_table(group(samples), {"date": "today", "machine": "1 × processor, system"})
    assert "| SET, 64 connections: a second | 100 | 50 | – |" in short, short
    first = judge(group(samples))[0]
    assert (first["against"], first["ratio"], first["met"]) == ("etcd, at its leader", 2.0, False), first
