//! Results for people, for scripts, and for plots.

use std::fmt::Write;

use super::floor::Floor;
use super::measure::{Interval, Latencies};
use super::run::{Options, Outcome};

const COLUMNS: [&str; 7] = ["mean", "min", "p50", "p90", "p99", "p99.9", "max"];

fn columns(latencies: &Latencies) -> [f64; 7] {
    let Latencies { mean, min, p50, p90, p99, p999, max } = *latencies;
    [mean, min, p50, p90, p99, p999, max]
}

/// A number as people write it: digits in groups, and decimals only where they matter.
fn number(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// What was done, and what came of it, as a table.
pub fn table(options: &Options, outcome: &Outcome) -> String {
    let mut out = String::new();
    let line = |out: &mut String, text: std::fmt::Arguments| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    let w = &options.workload;
    let pace = options.rate.map_or("closed loop".to_owned(), |rate| format!("{} a second", number(rate)));
    line(
        &mut out,
        format_args!(
            "{} over {}, {} connections × {}, {} {} keys, values of {} B, {:.1} s, {pace}",
            w.mix,
            options.dialect.name(),
            options.connections,
            options.pipeline,
            w.key_count,
            w.distribution,
            w.value_len,
            outcome.seconds
        ),
    );
    let _ = write!(out, "{:<5}{:>12}{:>8}", "", "a second", "errors");
    for column in COLUMNS {
        let _ = write!(out, "{column:>11}");
    }
    line(&mut out, format_args!("  µs{:>11}", "gap ms"));
    for result in &outcome.results {
        let _ = write!(out, "{:<5}{:>12}{:>8}", result.name, number(result.per_second), result.errors);
        for value in columns(&result.latencies) {
            let _ = write!(out, "{:>11}", number(value));
        }
        line(&mut out, format_args!("    {:>11}", number(result.longest_gap_ms)));
    }
    let all = &outcome.results[0];
    let each = |time: std::time::Duration| number(time.as_secs_f64() * 1e6 / all.operations.max(1) as f64);
    let servers =
        outcome.cpu.servers.map_or(String::new(), |time| format!(", of the servers {} µs", each(time)));
    line(
        &mut out,
        format_args!("processor time an operation: of kvbench {} µs{servers}", each(outcome.cpu.own)),
    );
    let missing = outcome.results.iter().skip(1).map(|result| result.missing).sum::<u64>();
    for (count, what) in [
        (missing, "reads found nothing (--fill gives every key a value)"),
        (outcome.unsent, "requests were due and could not be sent: more connections or a lower rate"),
        (outcome.lost, "connections were lost"),
    ] {
        if count > 0 {
            line(&mut out, format_args!("{count} {what}"));
        }
    }
    for (text, count) in &outcome.errors {
        line(&mut out, format_args!("{count} × {text}"));
    }
    if outcome.interrupted {
        line(&mut out, format_args!("interrupted before its time"));
    }
    out
}

/// The same for scripts.
pub fn json(options: &Options, outcome: &Outcome) -> String {
    let w = &options.workload;
    let targets: Vec<String> = options.targets.iter().map(|target| string(&target.name)).collect();
    let results: Vec<String> = outcome
        .results
        .iter()
        .map(|r| {
            format!(
                "    {{\"name\": {}, \"operations\": {}, \"missing\": {}, \"errors\": {}, \"per_second\": {:.1}, \
                 \"longest_gap_ms\": {:.3}, \"latency_us\": {}}}",
                string(r.name), r.operations, r.missing, r.errors, r.per_second, r.longest_gap_ms,
                latency_json(&r.latencies)
            )
        })
        .collect();
    let errors: Vec<String> =
        outcome.errors.iter().map(|(text, count)| format!("{}: {count}", string(text))).collect();
    let operations = outcome.results[0].operations.max(1) as f64;
    let each = |time: std::time::Duration| format!("{:.3}", time.as_secs_f64() * 1e6 / operations);
    let null = || "null".to_owned();
    format!(
        "{{\n  \"program\": \"kvbench {}\",\n  \"targets\": [{}],\n  \"dialect\": {},\n  \"connections\": {},\n  \
         \"pipeline\": {},\n  \"rate\": {},\n  \"mix\": {},\n  \"keys\": {},\n  \"distribution\": {},\n  \
         \"value_len\": {},\n  \"mset_len\": {},\n  \"consistency\": {},\n  \"wait\": {},\n  \"seconds\": {:.3},\n  \
         \"interrupted\": {},\n  \"lost_connections\": {},\n  \"unsent\": {},\n  \"server_cpu_us\": {},\n  \
         \"own_cpu_us\": {},\n  \"error_texts\": {{{}}},\n  \"results\": [\n{}\n  ]\n}}\n",
        env!("CARGO_PKG_VERSION"),
        targets.join(", "),
        string(options.dialect.name()),
        options.connections,
        options.pipeline,
        options.rate.map_or_else(null, |rate| rate.to_string()),
        string(&w.mix.to_string()),
        w.key_count,
        string(&w.distribution.to_string()),
        w.value_len,
        w.mset_len,
        options.consistency.map_or_else(null, |level| string(level.name())),
        options.wait.map_or_else(null, |wait| wait.to_string()),
        outcome.seconds,
        outcome.interrupted,
        outcome.lost,
        outcome.unsent,
        outcome.cpu.servers.map_or_else(null, each),
        each(outcome.cpu.own),
        errors.join(", "),
        results.join(",\n")
    )
}

fn latency_json(latencies: &Latencies) -> String {
    let fields: Vec<String> = COLUMNS
        .iter()
        .zip(columns(latencies))
        .map(|(name, value)| format!("\"{}\": {value:.2}", name.replace('.', "")))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

/// A string as JSON has it.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The timeline with a line for each interval, for plots.
pub fn timeline_csv(intervals: &[Interval]) -> String {
    let mut out = "begin_ms,operations,errors,p50_us,p99_us,max_us\n".to_owned();
    for i in intervals {
        let Latencies { p50, p99, max, .. } = i.latencies;
        let _ = writeln!(out, "{},{},{},{p50:.1},{p99:.1},{max:.1}", i.begin_ms, i.operations, i.errors);
    }
    out
}

/// What the machine can do, as a table.
pub fn floor_table(floor: &Floor) -> String {
    let mut out = format!("{:<44}{:>8}", "", "times");
    for column in COLUMNS {
        let _ = write!(out, "{column:>11}");
    }
    out.push_str("  µs\n");
    for (_, what, count, latencies) in floor.rows() {
        let _ = write!(out, "{what:<44}{count:>8}");
        for value in columns(latencies) {
            let _ = write!(out, "{:>11}", number(value));
        }
        out.push('\n');
    }
    out
}

/// The same for scripts.
pub fn floor_json(floor: &Floor) -> String {
    let rows: Vec<String> = floor
        .rows()
        .into_iter()
        .map(|(name, _, count, latencies)| {
            format!("  {}: {{\"count\": {count}, \"latency_us\": {}}}", string(name), latency_json(latencies))
        })
        .collect();
    format!("{{\n{}\n}}\n", rows.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let texts: Vec<String> = [0.0, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0].map(number).to_vec();
        assert_eq!(texts, ["0.00", "1.23", "12.3", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn strings_are_json() {
        assert_eq!(string("a \"b\" \\ \n é"), "\"a \\\"b\\\" \\\\ \\u000a é\"");
    }
}
