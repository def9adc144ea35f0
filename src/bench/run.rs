//! The loop: connecting, filling, load, and the end of it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::{Broken, Connection, Pending};
use super::cpu::{self, CpuTimes, CpuUse};
use super::dialect::{Answer, Dialect, DialectName};
use super::error::system;
use super::measure::{Interval, Latencies, Measurements, OperationResult};
use super::schedule::{Schedule, Timer};
use super::workload::{Generator, Operation, Workload};
use super::{BenchError, Target};
use crate::wire::client::Consistency;

/// Connections that are being made at the same time: more might overflow the queue of a listener.
const CONNECTING_MAX: usize = 100;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a lost connection is left alone before it is made again.
const RETRY_AFTER: u64 = 50_000_000;
/// What is under way at the end has so long to end.
const DRAIN: u64 = 2_000_000_000;
/// A run without any answer for so long has failed.
const SILENCE: u64 = 30_000_000_000;
/// Requests under way on a connection while keys are filled in.
const FILL_DEPTH: usize = 32;
const READ_LEN: usize = 256 << 10;
const EVENTS: usize = 1024;
const SECOND: u64 = 1_000_000_000;
const TIMER: Token = Token(usize::MAX);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// To whom; connections go round.
    pub targets: Vec<Target>,
    /// In what.
    pub dialect: DialectName,
    /// Connections, all targets together.
    pub connections: usize,
    /// Requests under way on each.
    pub pipeline: usize,
    /// Requests a second, all connections together; `None`: as many as are answered.
    pub rate: Option<f64>,
    /// The measured window.
    pub length: Duration,
    /// Load before it.
    pub warmup: Duration,
    /// Which commands.
    pub workload: Workload,
    /// How fresh reads have to be; `None`: what the server does by itself.
    pub consistency: Option<Consistency>,
    /// After each write, wait for so many replicas.
    pub wait: Option<u32>,
    /// Every key gets a value first.
    pub fill: bool,
    /// Lost connections are made again and counted, instead of ending the run.
    pub tolerate: bool,
    /// Processes whose processor time counts as the server's.
    pub pids: Vec<u32>,
    /// The length of the timeline's intervals, if there is to be one.
    pub timeline: Option<Duration>,
}

/// How a run is going; told once a second.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// `fill`, `warm-up` or `load`.
    pub phase: &'static str,
    /// Since its beginning.
    pub seconds: f64,
    /// Answers in the last second.
    pub per_second: f64,
    /// Of the window so far.
    pub latencies: Latencies,
    /// So far.
    pub errors: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All together, then each kind.
    pub results: Vec<OperationResult>,
    /// The measured window.
    pub seconds: f64,
    /// Some texts of errors, with how often they came.
    pub errors: Vec<(String, u64)>,
    /// Connections that were lost.
    pub lost: u64,
    /// Requests that were due and could not be sent: all connections were waiting.
    pub unsent: u64,
    /// Processor time in the window.
    pub cpu: CpuUse,
    /// If it was wanted.
    pub timeline: Vec<Interval>,
    /// The user ended the run before its time.
    pub interrupted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Connect,
    Fill,
    Load,
    Drain,
}

struct Runner<'a> {
    options: &'a Options,
    clock: Instant,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    /// Places of lost connections, and when they are tried again.
    retries: VecDeque<(u64, usize)>,
    buffer: Vec<u8>,
    generator: Generator,
    measured: Measurements,
    phase: Phase,
    /// Keys that have been filled in.
    filled: u64,
    /// At a fixed rate: what is due when, and free places on connections.
    schedule: Option<(Schedule, Timer)>,
    free: VecDeque<usize>,
    /// Connections with something to write.
    touched: Vec<usize>,
    lost: u64,
    /// The last answer, or the beginning.
    heard: u64,
}

/// Puts the load on and measures. `progress` is told once a second, and the run ends early when `interrupted` is set.
///
/// # Errors
/// Bad options, servers that cannot be reached or say nonsense; lost connections unless they are tolerated.
pub fn run(
    options: &Options,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Outcome, BenchError> {
    check(options)?;
    raise_file_limit();
    let clock = Instant::now();
    let poll = Poll::new().map_err(system("make a poll"))?;
    let mut runner = Runner {
        options,
        clock,
        poll,
        connections: Vec::new(),
        retries: VecDeque::new(),
        buffer: vec![0; READ_LEN],
        generator: Generator::new(options.workload.clone()),
        measured: Measurements::new(u64::MAX, u64::MAX, false, None),
        phase: Phase::Connect,
        filled: if options.fill { 0 } else { options.workload.key_count },
        schedule: None,
        free: VecDeque::new(),
        touched: Vec::new(),
        lost: 0,
        heard: 0,
    };
    runner.connect()?;
    if options.fill {
        runner.fill(interrupted, progress)?;
    }
    let (begin, cpu) = runner.load(interrupted, progress)?;
    let end = runner.now();
    runner.measured.cut(end);
    let unsent = runner.drain()?;
    let mut measured = runner.measured;
    let seconds = measured.seconds();
    let was_interrupted = interrupted.load(Ordering::Relaxed) && end < begin + nanos(options.length);
    Ok(Outcome {
        results: measured.results(),
        seconds,
        errors: std::mem::take(&mut measured.error_texts).into_iter().collect(),
        lost: runner.lost,
        unsent,
        cpu,
        timeline: measured.intervals(),
        interrupted: was_interrupted,
    })
}

fn check(options: &Options) -> Result<(), BenchError> {
    let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
    options.workload.check()?;
    options.dialect.check(&options.workload, options.consistency, options.wait)?;
    cpu::check(&options.pids)?;
    if !(1..=60_000).contains(&options.connections) {
        return usage("--connections: expected 1 to 60000");
    }
    if !(1..=100_000).contains(&options.pipeline) {
        return usage("--pipeline: expected 1 to 100000");
    }
    if options.rate.is_some_and(|rate| !(0.001..=1e8).contains(&rate)) {
        return usage("--rate: expected 0.001 to 100000000");
    }
    if options.length.is_zero() || options.length > Duration::from_secs(1_000_000) {
        return usage("--seconds: expected more than 0 and at most 1000000");
    }
    Ok(())
}

/// Lets this process open as many files as the system allows at all, for the sake of many connections; returns how
/// many that are.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Runner<'_> {
    fn now(&self) -> u64 {
        nanos(self.clock.elapsed())
    }

    fn target(&self, place: usize) -> &Target {
        &self.options.targets[place % self.options.targets.len()]
    }

    fn open(&self, place: usize) -> io::Result<Connection> {
        let options = self.options;
        let target = self.target(place);
        let dialect = Dialect::new(options.dialect, &target.name, options.consistency, options.wait);
        Connection::open(target.address, dialect, self.poll.registry(), Token(place))
    }

    /// Makes all connections and hears the answers to what they begin with.
    fn connect(&mut self) -> Result<(), BenchError> {
        let deadline = nanos(CONNECT_PATIENCE);
        let mut events = Events::with_capacity(EVENTS);
        let is_ready = |c: &Option<Connection>| c.as_ref().is_some_and(|c| c.established && c.under_way == 0);
        let mut connecting: Vec<usize> = Vec::new();
        loop {
            while connecting.len() < CONNECTING_MAX && self.connections.len() < self.options.connections {
                let place = self.connections.len();
                let opened = self.open(place).map_err(|error| self.unreachable(place, error))?;
                self.connections.push(Some(opened));
                connecting.push(place);
            }
            if connecting.is_empty() {
                return Ok(());
            }
            let now = self.now();
            if now > deadline {
                let error = io::Error::new(io::ErrorKind::TimedOut, "no answer");
                return Err(self.unreachable(connecting[0], error));
            }
            self.wait(&mut events, now + SECOND / 10)?;
            let now = self.now();
            for event in &events {
                let place = event.token().0;
                let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
                    continue;
                };
                if !connection.established {
                    let target = &self.options.targets[place % self.options.targets.len()];
                    let established = connection.establish(now);
                    established
                        .map_err(|error| BenchError::Unreachable { address: target.name.clone(), error })?;
                }
                self.serve(now, place, event.is_read_closed())?;
            }
            if let Some((text, _)) = self.measured.error_texts.first_key_value() {
                let address = self.target(0).name.clone();
                return Err(BenchError::Refused { address, answer: text.clone() });
            }
            connecting.retain(|place| !is_ready(&self.connections[*place]));
        }
    }

    fn unreachable(&self, place: usize, error: io::Error) -> BenchError {
        BenchError::Unreachable { address: self.target(place).name.clone(), error }
    }

    /// Waits until something happens, and no longer than `until`.
    fn wait(&mut self, events: &mut Events, until: u64) -> Result<(), BenchError> {
        let timeout = Duration::from_nanos(until.saturating_sub(self.now()));
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            polled => polled.map_err(system("wait for events")),
        }
    }

    /// Gives every key a value.
    fn fill(
        &mut self,
        interrupted: &AtomicBool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), BenchError> {
        self.phase = Phase::Fill;
        let begin = self.now();
        self.heard = begin;
        let mut ticks = Ticks::new(begin, 0);
        self.start_all()?;
        let mut events = Events::with_capacity(EVENTS);
        while self.connections.iter().flatten().any(|connection| connection.under_way > 0)
            && !interrupted.load(Ordering::Relaxed)
        {
            self.turn(&mut events, ticks.next)?;
            if let Some((seconds, per_second)) = ticks.tick(self.now(), self.measured.answers) {
                let errors = self.measured.all_errors;
                let latencies = Latencies::default();
                progress(&Progress { phase: "fill", seconds, per_second, latencies, errors });
            }
        }
        match self.measured.error_texts.first_key_value() {
            Some((text, _)) if !self.options.tolerate => {
                Err(BenchError::Refused { address: self.target(0).name.clone(), answer: text.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Warm-up and the measured window; returns when the window began, and the processor time in it.
    fn load(
        &mut self,
        interrupted: &AtomicBool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(u64, CpuUse), BenchError> {
        self.phase = Phase::Load;
        let start = self.now();
        let begin = start + nanos(self.options.warmup);
        let end = begin + nanos(self.options.length);
        let by_due = self.options.rate.is_some();
        self.measured = Measurements::new(begin, end, by_due, self.options.timeline.map(nanos));
        self.heard = start;
        if let Some(rate) = self.options.rate {
            let timer = Timer::new(self.poll.registry(), TIMER).map_err(system("make a timer"))?;
            self.schedule = Some((Schedule::new(start, rate), timer));
            self.free = (0..self.options.pipeline).flat_map(|_| 0..self.options.connections).collect();
        }
        self.start_all()?;
        let mut events = Events::with_capacity(EVENTS);
        let mut at_begin = None;
        let mut ticks = Ticks::new(start, self.measured.answers);
        loop {
            let now = self.now();
            if now >= begin && at_begin.is_none() {
                at_begin = Some(CpuTimes::now(&self.options.pids));
                ticks = Ticks::new(begin, self.measured.answers);
            }
            if now >= end || interrupted.load(Ordering::Relaxed) {
                break;
            }
            let mark = if at_begin.is_some() { end } else { begin };
            self.turn(&mut events, mark.min(ticks.next))?;
            if let Some((seconds, per_second)) = ticks.tick(self.now(), self.measured.answers) {
                let phase = if at_begin.is_some() { "load" } else { "warm-up" };
                let latencies = self.measured.so_far().1;
                let errors = self.measured.all_errors;
                progress(&Progress { phase, seconds, per_second, latencies, errors });
            }
        }
        let at_end = CpuTimes::now(&self.options.pids);
        Ok((begin, at_end.since(at_begin.as_ref().unwrap_or(&at_end))))
    }

    /// Lets what is under way end; returns how many requests were due and could not be sent.
    fn drain(&mut self) -> Result<u64, BenchError> {
        self.phase = Phase::Drain;
        let begin = self.now();
        let mut unsent = 0;
        if let Some((schedule, _)) = &mut self.schedule {
            let operation = Operation::ALL.into_iter().find(|kind| self.options.workload.mix.has(*kind));
            while schedule.due() < begin {
                self.measured.record_unsent(schedule.due(), operation.expect("a mix has something"));
                schedule.advance();
                unsent += 1;
            }
        }
        let mut events = Events::with_capacity(EVENTS);
        while self.connections.iter().flatten().any(|connection| connection.under_way > 0)
            && self.now() < begin + DRAIN
        {
            self.turn(&mut events, begin + DRAIN)?;
        }
        let now = self.now();
        for connection in self.connections.iter().flatten() {
            for pending in connection.abandoned() {
                self.measured.record_unanswered(now, pending);
            }
        }
        Ok(unsent)
    }

    /// One round: what has happened, what is due.
    fn turn(&mut self, events: &mut Events, until: u64) -> Result<(), BenchError> {
        let retry = self.retries.front().map_or(u64::MAX, |(at, _)| *at);
        self.wait(events, until.min(retry))?;
        let mut now = self.now();
        for event in events.iter() {
            if event.token() == TIMER {
                continue;
            }
            let place = event.token().0;
            now = self.now();
            self.serve(now, place, event.is_read_closed())?;
        }
        self.retry(now)?;
        if self.phase == Phase::Load {
            self.send_due(now)?;
        }
        if now.saturating_sub(self.heard) > SILENCE && !self.options.tolerate && self.options.rate.is_none() {
            return Err(BenchError::Silent(Duration::from_nanos(SILENCE)));
        }
        Ok(())
    }

    /// Reads answers, sends what may follow them.
    fn serve(&mut self, now: u64, place: usize, is_closing: bool) -> Result<(), BenchError> {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return Ok(());
        };
        if !connection.established {
            return match connection.establish(now) {
                Ok(false) => Ok(()),
                Ok(true) => {
                    if self.schedule.is_some() {
                        self.free.extend(std::iter::repeat_n(place, self.options.pipeline));
                    }
                    self.start(now, place)
                }
                Err(error) => self.broken(now, place, Broken::Lost(error.to_string())),
            };
        }
        let measured = &mut self.measured;
        let (heard, free) = (&mut self.heard, &mut self.free);
        let keeps_places = self.schedule.is_some();
        let received =
            connection.receive(&mut self.buffer, is_closing, |pending: Pending, answer: Answer| {
                *heard = now;
                if keeps_places && pending.operation.is_some() {
                    free.push_back(place);
                }
                measured.record(now, pending, answer);
            });
        match received {
            Ok(()) => self.start(now, place),
            Err(broken) => self.broken(now, place, broken),
        }
    }

    fn start_all(&mut self) -> Result<(), BenchError> {
        for place in 0..self.connections.len() {
            let now = self.now();
            self.start(now, place)?;
        }
        Ok(())
    }

    /// Fills a connection up with requests, if it may send by itself, and writes.
    fn start(&mut self, now: u64, place: usize) -> Result<(), BenchError> {
        let Some(connection) = self.connections[place].as_mut() else { return Ok(()) };
        match self.phase {
            Phase::Fill => {
                while connection.under_way < FILL_DEPTH && self.filled < self.options.workload.key_count {
                    connection.submit(&self.generator.filling(self.filled), now);
                    self.filled += 1;
                }
            }
            Phase::Load if self.schedule.is_none() => {
                while connection.under_way < self.options.pipeline {
                    connection.submit(&self.generator.next(), now);
                }
            }
            Phase::Connect | Phase::Load | Phase::Drain => {}
        }
        match connection.flush() {
            Ok(()) => Ok(()),
            Err(broken) => self.broken(now, place, broken),
        }
    }

    /// At a fixed rate: sends what is due, as far as there are free places, and sets the timer for the next.
    fn send_due(&mut self, now: u64) -> Result<(), BenchError> {
        let Some((schedule, timer)) = &mut self.schedule else { return Ok(()) };
        while schedule.due() <= now
            && let Some(place) = self.free.pop_front()
        {
            let connection = self.connections[place].as_mut().filter(|connection| connection.established);
            // The place went away with its connection; a new one brings new places.
            let Some(connection) = connection.filter(|c| c.under_way < self.options.pipeline) else {
                continue;
            };
            connection.submit(&self.generator.next(), schedule.due());
            schedule.advance();
            self.touched.push(place);
        }
        if !self.free.is_empty() {
            timer.arm(now, schedule.due()).map_err(system("set a timer"))?;
        }
        for place in std::mem::take(&mut self.touched) {
            if let Some(connection) = self.connections[place].as_mut()
                && let Err(broken) = connection.flush()
            {
                self.broken(now, place, broken)?;
            }
        }
        Ok(())
    }

    /// A connection is lost: the end, unless that is tolerated.
    fn broken(&mut self, now: u64, place: usize, broken: Broken) -> Result<(), BenchError> {
        let address = self.target(place).name.clone();
        let why = match broken {
            Broken::Nonsense(found) => return Err(BenchError::Nonsense { address, found }),
            Broken::Lost(why) if !self.options.tolerate => return Err(BenchError::Lost { address, why }),
            Broken::Lost(why) => why,
        };
        if let Some(connection) = self.connections[place].take() {
            // One that could not even be made again is not lost a second time.
            self.lost += u64::from(connection.established);
            for pending in connection.abandoned() {
                self.measured.record(now, pending, Answer::Error(format!("connection lost: {why}")));
            }
        }
        self.free.retain(|free| *free != place);
        self.retries.push_back((now + RETRY_AFTER, place));
        Ok(())
    }

    fn retry(&mut self, now: u64) -> Result<(), BenchError> {
        while let Some((at, place)) = self.retries.front().copied()
            && at <= now
        {
            self.retries.pop_front();
            match self.open(place) {
                Ok(connection) => self.connections[place] = Some(connection),
                Err(_) => self.retries.push_back((now + RETRY_AFTER, place)),
            }
        }
        Ok(())
    }
}

/// Once a second.
struct Ticks {
    begin: u64,
    next: u64,
    last: u64,
    answers: u64,
}

impl Ticks {
    fn new(begin: u64, answers: u64) -> Ticks {
        Ticks { begin, next: begin + SECOND, last: begin, answers }
    }

    /// If a second is over: seconds since the beginning, and answers a second in the last one.
    fn tick(&mut self, now: u64, answers: u64) -> Option<(f64, f64)> {
        if now < self.next {
            return None;
        }
        let per_second = answers.saturating_sub(self.answers) as f64 / ((now - self.last) as f64 / 1e9);
        (self.last, self.answers) = (now, answers);
        self.next += SECOND * (1 + (now - self.next) / SECOND);
        Some(((now - self.begin) as f64 / 1e9, per_second))
    }
}
