//! What is counted.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::connection::Pending;
use super::dialect::Answer;
use super::workload::Operation;

/// Different texts of errors that are kept.
const ERROR_TEXTS_MAX: usize = 8;
/// Significant digits of latencies.
const DIGITS: u8 = 3;
const LATENCY_MAX: u64 = 900_000_000_000;

/// Latencies in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Latencies {
    /// The mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// Half of them are not above it.
    pub p50: f64,
    /// Of ten, nine are not above it.
    pub p90: f64,
    /// Of a hundred, 99 are not above it.
    pub p99: f64,
    /// Of a thousand, 999 are not above it.
    pub p999: f64,
    /// The greatest.
    pub max: f64,
}

impl Latencies {
    pub(super) fn of(histogram: &Histogram<u64>) -> Latencies {
        if histogram.is_empty() {
            return Latencies::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latencies {
            mean: histogram.mean() / 1e3,
            min: histogram.min() as f64 / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// A histogram of nanoseconds, up to a quarter of an hour; what is longer counts as that.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).expect("bounds and digits are allowed")
}

/// What came of one kind of command, or of all together, in the measured window.
#[derive(Clone, PartialEq, Debug)]
pub struct OperationResult {
    /// The command, or `all`.
    pub name: &'static str,
    /// Answered without an error.
    pub operations: u64,
    /// Of these, reads that found nothing.
    pub missing: u64,
    /// Answered with an error, or never because the connection was lost.
    pub errors: u64,
    /// Operations a second.
    pub per_second: f64,
    /// How long the operations took.
    pub latencies: Latencies,
    /// The longest time without an operation, in milliseconds.
    pub longest_gap_ms: f64,
}

/// One stretch of the measured window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// Its beginning, in milliseconds of the window.
    pub begin_ms: f64,
    /// Operations that were answered in it.
    pub operations: u64,
    /// Errors.
    pub errors: u64,
    /// How long they took.
    pub latencies: Latencies,
}

#[derive(Debug)]
struct Tally {
    histogram: Histogram<u64>,
    operations: u64,
    missing: u64,
    errors: u64,
    last: u64,
    gap: u64,
}

#[derive(Debug)]
struct Timeline {
    length: u64,
    begin: u64,
    histogram: Histogram<u64>,
    operations: u64,
    errors: u64,
    done: Vec<Interval>,
}

/// Everything that was counted. Times are nanoseconds of the run.
#[derive(Debug)]
pub(super) struct Measurements {
    begin: u64,
    end: u64,
    /// Latencies belong to the window in which the request was due, not to that of its answer.
    by_due: bool,
    tallies: Vec<Tally>,
    all_last: u64,
    all_gap: u64,
    timeline: Option<Timeline>,
    pub(super) error_texts: BTreeMap<String, u64>,
    /// Counted at any time.
    pub(super) answers: u64,
    pub(super) all_errors: u64,
}

impl Measurements {
    /// Counts what falls into the window.
    pub(super) fn new(begin: u64, end: u64, by_due: bool, interval: Option<u64>) -> Measurements {
        let tally =
            |_| Tally { histogram: histogram(), operations: 0, missing: 0, errors: 0, last: begin, gap: 0 };
        let timeline = interval.map(|length| Timeline {
            length,
            begin,
            histogram: histogram(),
            operations: 0,
            errors: 0,
            done: Vec::new(),
        });
        Measurements {
            begin,
            end,
            by_due,
            tallies: Operation::ALL.iter().map(tally).collect(),
            all_last: begin,
            all_gap: 0,
            timeline,
            error_texts: BTreeMap::new(),
            answers: 0,
            all_errors: 0,
        }
    }

    /// The window ends here, if that is earlier.
    pub(super) fn cut(&mut self, end: u64) {
        self.end = self.end.min(end.max(self.begin));
    }

    /// Counts an answer.
    pub(super) fn record(&mut self, now: u64, pending: Pending, answer: Answer) {
        self.answers += 1;
        let Some(operation) = pending.operation else {
            if let Answer::Error(text) = answer {
                self.note_error(text);
            }
            return;
        };
        let in_window = (self.begin..self.end).contains(&now);
        let tally = &mut self.tallies[operation as usize];
        if let Answer::Error(text) = answer {
            self.all_errors += 1;
            self.note_error(text);
            if in_window {
                self.tallies[operation as usize].errors += 1;
                if let Some(timeline) = &mut self.timeline {
                    timeline.advance(now);
                    timeline.errors += 1;
                }
            }
            return;
        }
        let latency = now.saturating_sub(pending.since).max(1);
        if if self.by_due { (self.begin..self.end).contains(&pending.since) } else { in_window } {
            tally.histogram.saturating_record(latency);
        }
        if !in_window {
            return;
        }
        tally.operations += 1;
        tally.missing += u64::from(answer == Answer::Missing);
        tally.gap = tally.gap.max(now - tally.last);
        tally.last = now;
        self.all_gap = self.all_gap.max(now - self.all_last);
        self.all_last = now;
        if let Some(timeline) = &mut self.timeline {
            timeline.advance(now);
            timeline.operations += 1;
            timeline.histogram.saturating_record(latency);
        }
    }

    /// A request that was due in the window and could not even be sent by its end. It took at least until then.
    pub(super) fn record_unsent(&mut self, due: u64, operation: Operation) {
        if (self.begin..self.end).contains(&due) {
            self.tallies[operation as usize].histogram.saturating_record((self.end - due).max(1));
        }
    }

    /// A request that was due in the window and whose answer did not come in time.
    pub(super) fn record_unanswered(&mut self, now: u64, pending: Pending) {
        if let Some(operation) = pending.operation
            && self.by_due
            && (self.begin..self.end).contains(&pending.since)
        {
            self.tallies[operation as usize]
                .histogram
                .saturating_record(now.saturating_sub(pending.since).max(1));
        }
    }

    fn note_error(&mut self, text: String) {
        if let Some(count) = self.error_texts.get_mut(&text) {
            *count += 1;
        } else if self.error_texts.len() < ERROR_TEXTS_MAX {
            self.error_texts.insert(text, 1);
        }
    }

    /// Operations and latencies so far, of all kinds together.
    pub(super) fn so_far(&self) -> (u64, Latencies) {
        (self.tallies.iter().map(|tally| tally.operations).sum(), Latencies::of(&self.merged()))
    }

    fn merged(&self) -> Histogram<u64> {
        let mut all = histogram();
        for tally in &self.tallies {
            all.add(&tally.histogram).expect("both have the same bounds");
        }
        all
    }

    /// Seconds of the window.
    pub(super) fn seconds(&self) -> f64 {
        (self.end - self.begin) as f64 / 1e9
    }

    /// All kinds together, then each kind that came.
    pub(super) fn results(&self) -> Vec<OperationResult> {
        let sum = |of: fn(&Tally) -> u64| self.tallies.iter().map(of).sum::<u64>();
        let result =
            |name, operations, missing, errors, histogram: &Histogram<u64>, gap: u64| OperationResult {
                name,
                operations,
                missing,
                errors,
                per_second: operations as f64 / self.seconds().max(f64::MIN_POSITIVE),
                latencies: Latencies::of(histogram),
                longest_gap_ms: gap as f64 / 1e6,
            };
        let gap = |gap: u64, last: u64| gap.max(self.end.saturating_sub(last));
        let (operations, missing, errors) = (sum(|t| t.operations), sum(|t| t.missing), sum(|t| t.errors));
        let all_gap = gap(self.all_gap, self.all_last);
        let mut results = vec![result("all", operations, missing, errors, &self.merged(), all_gap)];
        for (kind, t) in Operation::ALL.iter().zip(&self.tallies) {
            if t.operations + t.errors > 0 {
                let gap = gap(t.gap, t.last);
                results.push(result(kind.name(), t.operations, t.missing, t.errors, &t.histogram, gap));
            }
        }
        results
    }

    /// The stretches of the window, if they were wanted.
    pub(super) fn intervals(&mut self) -> Vec<Interval> {
        let end = self.end;
        self.timeline.as_mut().map(|timeline| timeline.finish(end)).unwrap_or_default()
    }
}

impl Timeline {
    /// Closes the stretches that lie before `now`.
    fn advance(&mut self, now: u64) {
        while now >= self.begin + self.length {
            self.close();
        }
    }

    fn close(&mut self) {
        let number = self.done.len() as u64;
        self.done.push(Interval {
            begin_ms: (number * self.length) as f64 / 1e6,
            operations: self.operations,
            errors: self.errors,
            latencies: Latencies::of(&self.histogram),
        });
        self.begin += self.length;
        (self.operations, self.errors) = (0, 0);
        self.histogram.reset();
    }

    fn finish(&mut self, end: u64) -> Vec<Interval> {
        self.advance(end);
        // A rest that is no whole stretch would look like a dip.
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn pending(operation: Operation, since: u64) -> Pending {
        Pending::of(Some(operation), since)
    }

    #[test]
    fn what_falls_into_the_window_counts() {
        let mut measured = Measurements::new(10 * MILLI, 110 * MILLI, false, Some(50 * MILLI));
        let set = |since| pending(Operation::Set, since);
        measured.record(9 * MILLI, set(8 * MILLI), Answer::Done);
        measured.record(11 * MILLI, set(9 * MILLI), Answer::Done);
        measured.record(81 * MILLI, set(80 * MILLI), Answer::Done);
        measured.record(82 * MILLI, pending(Operation::Get, 80 * MILLI), Answer::Missing);
        measured.record(83 * MILLI, set(80 * MILLI), Answer::Error("no".to_owned()));
        measured.record(110 * MILLI, set(109 * MILLI), Answer::Done);
        let results = measured.results();
        let names: Vec<&str> = results.iter().map(|result| result.name).collect();
        assert_eq!(names, ["all", "SET", "GET"]);
        let counts: Vec<_> = results.iter().map(|r| (r.operations, r.missing, r.errors)).collect();
        assert_eq!(counts, [(3, 1, 1), (2, 0, 1), (1, 1, 0)]);
        assert_eq!(results[0].longest_gap_ms, 70.0);
        assert_eq!(results[2].longest_gap_ms, 72.0);
        assert_eq!(results[0].per_second, 30.0);
        assert!((results[1].latencies.max - 2000.0).abs() < 3.0, "{:?}", results[1]);
        let intervals: Vec<_> = measured.intervals().iter().map(|i| (i.operations, i.errors)).collect();
        assert_eq!(intervals, [(1, 0), (2, 1)]);
    }

    #[test]
    fn at_a_fixed_rate_a_late_answer_counts_for_when_it_was_due() {
        let mut measured = Measurements::new(0, 100 * MILLI, true, None);
        measured.record(250 * MILLI, pending(Operation::Set, 90 * MILLI), Answer::Done);
        measured.record_unsent(40 * MILLI, Operation::Set);
        let all = &measured.results()[0];
        assert_eq!(all.operations, 0);
        assert!((all.latencies.max - 160_000.0).abs() < 200.0, "{all:?}");
        assert!((all.latencies.p50 - 60_000.0).abs() < 100.0, "{all:?}");
    }
}
