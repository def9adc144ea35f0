//! Which commands on which keys.

use std::fmt;

use crate::types::splitmix64;

use super::BenchError;
use super::zipf::Zipf;

/// A kind of command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Writes a value.
    Set,
    /// Reads a value.
    Get,
    /// Counts.
    Incr,
    /// Writes several values.
    Mset,
}

impl Operation {
    /// All kinds, in the order of reports.
    pub const ALL: [Operation; 4] = [Operation::Set, Operation::Get, Operation::Incr, Operation::Mset];

    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Set => "SET",
            Operation::Get => "GET",
            Operation::Incr => "INCR",
            Operation::Mset => "MSET",
        }
    }

    /// Whether it changes anything.
    pub fn is_write(self) -> bool {
        self != Operation::Get
    }
}

/// How often each kind comes: `set=9,get=1`, or one name alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    weights: [u32; Operation::ALL.len()],
}

impl Mix {
    /// Reads a mix.
    ///
    /// # Errors
    /// Words that are no such thing, in a sentence for the user.
    pub fn parse(text: &str) -> Result<Mix, String> {
        let mut weights = [0_u32; Operation::ALL.len()];
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Operation::ALL.iter().position(|kind| kind.name().eq_ignore_ascii_case(name.trim()));
            let Some(kind) = kind else {
                return Err(format!("found \"{name}\", expected set, get, incr or mset"));
            };
            let weight = weight.trim().parse::<u32>().ok().filter(|weight| *weight <= 1_000_000);
            weights[kind] =
                weight.ok_or_else(|| format!("found \"{part}\", expected a weight as in {name}=9"))?;
        }
        if weights.iter().all(|weight| *weight == 0) {
            return Err("all weights are 0".to_owned());
        }
        Ok(Mix { weights })
    }

    /// Whether this kind comes at all.
    pub fn has(&self, operation: Operation) -> bool {
        self.weights[operation as usize] > 0
    }

    fn draw(&self, random: u64) -> Operation {
        let total: u64 = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = random % total;
        for (kind, weight) in Operation::ALL.into_iter().zip(self.weights) {
            if left < u64::from(weight) {
                return kind;
            }
            left -= u64::from(weight);
        }
        unreachable!("a number below the sum lies in one of the parts")
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, weight) in Operation::ALL.into_iter().zip(self.weights).filter(|(_, weight)| *weight > 0) {
            write!(f, "{separator}{}={weight}", kind.name().to_ascii_lowercase())?;
            separator = ",";
        }
        Ok(())
    }
}

/// Which keys are asked for how often.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// By Zipf's law with this exponent; 0.99 is the custom.
    Zipf(f64),
}

impl Distribution {
    /// Reads `uniform`, `zipf` or `zipf:EXPONENT`.
    ///
    /// # Errors
    /// Anything else, in a sentence for the user.
    pub fn parse(text: &str) -> Result<Distribution, String> {
        let refuse = || format!("found \"{text}\", expected uniform, zipf, or zipf:0.99");
        match text.split_once(':') {
            None if text == "uniform" => Ok(Distribution::Uniform),
            None if text == "zipf" => Ok(Distribution::Zipf(0.99)),
            Some(("zipf", exponent)) => {
                let exponent = exponent.parse::<f64>().ok().filter(|e| *e > 0.0 && *e <= 10.0);
                exponent.map(Distribution::Zipf).ok_or_else(refuse)
            }
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Uniform => write!(f, "uniform"),
            Distribution::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How often each command comes.
    pub mix: Mix,
    /// How many keys there are.
    pub key_count: u64,
    /// Which of them are asked for how often.
    pub distribution: Distribution,
    /// Bytes of a value.
    pub value_len: usize,
    /// Keys of one MSET.
    pub mset_len: usize,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Workload {
    /// Says what is wrong with the numbers.
    ///
    /// # Errors
    /// Numbers outside their limits.
    pub fn check(&self) -> Result<(), BenchError> {
        let usage = |text: String| Err(BenchError::Usage(text));
        if !(1..=KEY_COUNT_MAX).contains(&self.key_count) {
            return usage(format!("--keys: found {}, expected 1 to {KEY_COUNT_MAX}", self.key_count));
        }
        if self.value_len > VALUE_LEN_MAX {
            return usage(format!("--value-len: found {}, expected at most {VALUE_LEN_MAX}", self.value_len));
        }
        if !(1..=1_000).contains(&self.mset_len) {
            return usage(format!("--mset-len: found {}, expected 1 to 1000", self.mset_len));
        }
        Ok(())
    }
}

const KEY_COUNT_MAX: u64 = 1_000_000_000_000;
const VALUE_LEN_MAX: usize = 16 << 20;
/// Bytes of a key.
const KEY_LEN: usize = 16;
/// Values begin at any place of a text that is longer than a value by this.
const VALUE_SHIFT: usize = 4096;

/// A key: four letters and twelve digits.
pub(super) type Key = [u8; KEY_LEN];

/// One command, drawn.
#[derive(Debug)]
pub(super) struct Command<'a> {
    pub(super) operation: Operation,
    /// One key, or those of an MSET.
    pub(super) keys: &'a [Key],
    /// For commands that have one.
    pub(super) value: &'a [u8],
}

/// Draws one command after the other.
#[derive(Debug)]
pub(super) struct Generator {
    workload: Workload,
    zipf: Option<Zipf>,
    random: u64,
    keys: Vec<Key>,
    text: Vec<u8>,
}

impl Generator {
    pub(super) fn new(workload: Workload) -> Generator {
        let mut random = workload.seed;
        let zipf = match workload.distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => Some(Zipf::new(workload.key_count, exponent)),
        };
        // Text that no server can make smaller, and that is easy on the eye when one looks into a log.
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let letter = |random: u64| LETTERS[(random >> 59) as usize];
        let text = (0..workload.value_len + VALUE_SHIFT).map(|_| letter(splitmix64(&mut random))).collect();
        Generator { workload, zipf, random, keys: Vec::new(), text }
    }

    /// The next command of the mix.
    pub(super) fn next(&mut self) -> Command<'_> {
        let operation = self.workload.mix.draw(splitmix64(&mut self.random));
        let count = if operation == Operation::Mset { self.workload.mset_len } else { 1 };
        self.keys.clear();
        for _ in 0..count {
            let number = self.key_number();
            // Counters are not text: they have keys of their own.
            self.keys.push(key(if operation == Operation::Incr { b"cnt:" } else { b"key:" }, number));
        }
        self.command(operation)
    }

    /// The SET that puts a value under a key by its number.
    pub(super) fn filling(&mut self, number: u64) -> Command<'_> {
        self.keys.clear();
        self.keys.push(key(b"key:", number));
        self.command(Operation::Set)
    }

    fn command(&mut self, operation: Operation) -> Command<'_> {
        let shift = splitmix64(&mut self.random) as usize % VALUE_SHIFT;
        let value = &self.text[shift..shift + self.workload.value_len];
        Command { operation, keys: &self.keys, value }
    }

    fn key_number(&mut self) -> u64 {
        let Some(zipf) = &self.zipf else {
            return splitmix64(&mut self.random) % self.workload.key_count;
        };
        loop {
            if let Some(number) = zipf.try_number(splitmix64(&mut self.random)) {
                return number;
            }
        }
    }
}

fn key(prefix: &[u8; 4], number: u64) -> Key {
    let mut key = [b'0'; KEY_LEN];
    key[..4].copy_from_slice(prefix);
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_and_printed() {
        let mix = Mix::parse("set=9,GET").expect("a mix");
        assert_eq!(mix.to_string(), "set=9,get=1");
        assert!(mix.has(Operation::Get) && !mix.has(Operation::Incr));
        for bad in ["", "set=", "del", "set=0", "get=-1"] {
            assert!(Mix::parse(bad).is_err(), "{bad}");
        }
        for (text, shown) in [("zipf", "zipf:0.99"), ("uniform", "uniform"), ("zipf:1.2", "zipf:1.2")] {
            assert_eq!(Distribution::parse(text).map(|d| d.to_string()), Ok(shown.to_owned()));
        }
        assert!(Distribution::parse("zipf:x").is_err());
    }

    #[test]
    fn commands_come_as_often_as_asked_for() {
        let mix = Mix::parse("set=3,get=1,mset=1").expect("a mix");
        let workload = Workload {
            mix,
            key_count: 50,
            distribution: Distribution::Uniform,
            value_len: 64,
            mset_len: 5,
            seed: 1,
        };
        let mut generator = Generator::new(workload);
        let mut counts = [0; Operation::ALL.len()];
        for _ in 0..10_000 {
            let command = generator.next();
            counts[command.operation as usize] += 1;
            assert_eq!(command.keys.len(), if command.operation == Operation::Mset { 5 } else { 1 });
            assert_eq!(command.value.len(), 64);
            assert!(command.keys.iter().all(|key| key.starts_with(b"key:0000000000")), "{:?}", command.keys);
        }
        assert!((5_700..6_300).contains(&counts[0]), "{counts:?}");
        assert!((1_800..2_200).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], 0);
        assert_eq!(&key(b"key:", 1_234), b"key:000000001234");
    }
}
