//! Total-order multicast: how many commands a second are *delivered on every node*.
//!
//! One iteration is one batch, from the offer at its sender until every node has delivered it; many
//! are under way at once. Replicas are wired together in one thread (`common::cluster`), so the
//! figure for five nodes is what one core needs for the work of all five; a real node has a core of
//! its own, and pays for sockets, checksums, its disk and the store besides. What is delivered is
//! not applied here: that is the bench `store`.

mod common;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Throughput};

use common::cluster::Cluster;

const NODE_COUNTS: [usize; 4] = [1, 3, 5, 7];
const BATCH_COUNTS: [usize; 3] = [1, 16, 256];
const VALUE_LEN: usize = 16;

/// What was measured for one bench, all samples together.
struct Figure {
    what: String,
    commands: u64,
    time: Duration,
}

fn main() {
    let mut criterion = common::criterion();
    let mut figures = Vec::new();
    for node_count in NODE_COUNTS {
        for (name, senders) in [("one-sender", 1), ("all-senders", node_count)] {
            if node_count == 1 && name == "all-senders" {
                continue;
            }
            let nodes = if node_count == 1 { "1-node".to_owned() } else { format!("{node_count}-nodes") };
            let mut group = criterion.benchmark_group(format!("multicast/{nodes}-{name}"));
            for batch_count in BATCH_COUNTS {
                let batch = common::set_batch(batch_count, VALUE_LEN);
                let mut figure = Figure {
                    what: format!("{}, {}, batches of {batch_count}", words(&nodes), words(name)),
                    commands: 0,
                    time: Duration::ZERO,
                };
                group.throughput(Throughput::Elements(batch_count as u64));
                group.bench_function(BenchmarkId::from_parameter(batch_count), |bencher| {
                    bencher.iter_custom(|iterations| {
                        let mut cluster = Cluster::founded(node_count);
                        let begun = Instant::now();
                        cluster.multicast(&batch, iterations, senders);
                        let time = begun.elapsed();
                        cluster.check_agreement();
                        figure.commands += iterations * batch_count as u64;
                        figure.time += time;
                        time
                    });
                });
                figures.push(figure);
            }
            group.finish();
        }
    }
    criterion.final_summary();
    summarize(&figures);
}

/// Says in plain words what was measured; nothing where that was a mere try.
fn summarize(figures: &[Figure]) {
    const WORTH_TELLING: Duration = Duration::from_millis(200);
    let worth = figures.iter().filter(|figure| figure.time >= WORTH_TELLING);
    for figure in worth {
        let rate = figure.commands as f64 / figure.time.as_secs_f64();
        let rate = if rate < 1e6 {
            format!("{:.0} thousand", rate / 1e3)
        } else {
            format!("{:.1} million", rate / 1e6)
        };
        println!("{}: {rate} commands a second delivered on every node, in one thread", figure.what);
    }
}

fn words(name: &str) -> String {
    name.replace('-', " ")
}
