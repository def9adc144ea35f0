//! A log in a file, for a program whose terminal belongs to the user.
//!
//! The programs that only run nodes log on standard error. `kvclient` with its own cluster has a prompt there,
//! so what its nodes log goes to a file beside their data. A line is the time, the level, the thread (which is
//! the node) and the text. A file that has become long is put aside at a start; the one before it is dropped.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

/// A file above this length is put aside, in bytes.
const LEN_MAX: u64 = 1 << 20;

/// Sends everything that is logged in this process to the end of a file. In a process that has a logger
/// already, nothing changes.
///
/// # Errors
/// The file cannot be opened.
pub fn start(path: &Path, level: LevelFilter) -> io::Result<()> {
    let log = LogFile::open(path)?;
    if log::set_boxed_logger(Box::new(log)).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

struct LogFile {
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        if fs::metadata(path).is_ok_and(|found| found.len() > LEN_MAX) {
            fs::rename(path, path.with_extension("log.old"))?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        Ok(LogFile { file: Mutex::new(file) })
    }
}

impl Log for LogFile {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = utc(since.as_secs());
        let (millis, level, text) = (since.subsec_millis(), record.level(), record.args());
        let thread = thread::current();
        let thread = thread.name().unwrap_or("-");
        let line = format!("{time}.{millis:03}Z {level:<5} {thread} {text}\n");
        // In one piece, so that lines of several threads stay whole. If it fails there is nobody to tell.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Seconds since 1970 as date and time in UTC.
fn utc(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    // Days are counted from 0000-03-01: then leap days end a year, and 400 years always have as many days.
    let days = seconds / DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, any five months in a row have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let of_day = seconds % DAY;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_763_733_511, "2025-11-21T13:58:31"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn lines_are_appended_and_a_long_file_is_put_aside() {
        let dir = std::env::temp_dir().join(format!("log-file-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("a.log");
        let say = |text: &str| {
            let log = LogFile::open(&path).expect("it can be written");
            log::set_max_level(log::max_level().max(LevelFilter::Warn));
            // Not by way of the macros: who logs for the whole process is not this test's business.
            log.log(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
        };
        say("first");
        say("second");
        let text = fs::read_to_string(&path).expect("there");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].ends_with(" first") && lines[1].contains("Z WARN  "), "{text}");
        File::options().write(true).open(&path).and_then(|f| f.set_len(LEN_MAX + 1)).expect("longer");
        say("third");
        assert_eq!(fs::read_to_string(&path).expect("there").lines().count(), 1);
        assert_eq!(fs::metadata(dir.join("a.log.old")).expect("there").len(), LEN_MAX + 1);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
