//! The built programs as child processes: short runs with an outcome, and nodes that keep running.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A built program: of the profile under test, or from the directory in `LANEKV_BIN_DIR`, so that tests built quickly
/// can measure programs built for speed.
pub(crate) fn program(name: &str) -> PathBuf {
    match std::env::var_os("LANEKV_BIN_DIR") {
        Some(dir) => Path::new(env!("CARGO_MANIFEST_DIR")).join(dir).join(name),
        None if name == "kvnode" => env!("CARGO_BIN_EXE_kvnode").into(),
        None if name == "kvbench" => env!("CARGO_BIN_EXE_kvbench").into(),
        None if name == "kvchaos" => env!("CARGO_BIN_EXE_kvchaos").into(),
        None => env!("CARGO_BIN_EXE_kvclient").into(),
    }
}

/// A command line of the built `kvnode`.
pub(crate) fn kvnode() -> Command {
    Command::new(program("kvnode"))
}

/// A command line of the built `kvclient`, without the history and settings of whoever runs the tests.
pub(crate) fn kvclient() -> Command {
    let mut command = Command::new(program("kvclient"));
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// What a run that ended by itself left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Runs a command to its end, with these bytes on its standard input.
    ///
    /// # Panics
    /// When it does not end in time.
    pub(crate) fn of(command: &mut Command, input: &[u8]) -> Finished {
        Self::within(command, input, PATIENCE)
    }

    /// The same with another patience.
    ///
    /// # Panics
    /// When it does not end in time.
    pub(crate) fn within(command: &mut Command, input: &[u8], patience: Duration) -> Finished {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built with the tests");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // Threads, so that neither side waits for a full pipe of the other.
        let feeder = std::thread::spawn(move || {
            // The program may end without reading all of it.
            let _ = stdin.write_all(&input);
        });
        let (ended, end) = channel();
        let mut stderr = child.stderr.take().expect("piped");
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut stdout = child.stdout.take().expect("piped");
        let output = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.read_to_end(&mut text);
            let _ = ended.send(());
            String::from_utf8_lossy(&text).into_owned()
        });
        if end.recv_timeout(patience).is_err() {
            let _ = child.kill();
            let _ = child.wait();
            let stderr = errors.join().unwrap_or_default();
            panic!("{command:?} did not end within {patience:?}; it wrote: {stderr}");
        }
        let status = child.wait().expect("a child of ours");
        feeder.join().expect("the feeder does not panic");
        Finished {
            code: status.code(),
            stdout: output.join().expect("the reader does not panic"),
            stderr: errors.join().expect("the reader does not panic"),
        }
    }

    /// Asserts that it was refused in the agreed way: this exit code, something said on standard error that
    /// contains `clue`, no panic.
    pub(crate) fn assert_refused(&self, code: i32, clue: &str) {
        assert_eq!(self.code, Some(code), "exit code; {self:#?}");
        assert!(self.stderr.contains(clue), "standard error without {clue:?}: {self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        println!("exit code {code}: {}", self.stderr.lines().last().unwrap_or_default());
    }
}

/// A `kvnode` that keeps running until it is stopped or killed.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Running {
    /// Starts it with standard error appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Running {
        let errors = File::options().create(true).append(true).open(log).expect("a writable directory");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("the program was built with the tests");
        let stdout = child.stdout.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Running { child, lines, log: log.to_path_buf() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line `ready …` and returns it.
    ///
    /// # Panics
    /// When the process ends first or takes too long.
    pub(crate) fn wait_ready(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                assert!(line.starts_with("ready "), "unexpected on standard output: {line:?}");
                line
            }
            Err(RecvTimeoutError::Timeout) => {
                panic!("not ready within {PATIENCE:?}; log:\n{}", self.log_text())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait();
                panic!("ended before it was ready: {status:?}; log:\n{}", self.log_text())
            }
        }
    }

    /// Whether it printed a line within this time.
    pub(crate) fn is_ready_within(&mut self, within: Duration) -> bool {
        self.lines.recv_timeout(within).is_ok()
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it takes too long.
    pub(crate) fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let begin = Instant::now();
        // Standard output closes when the process ends.
        loop {
            match self.lines.recv_timeout(within.saturating_sub(begin.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running after {within:?}; log:\n{}", self.log_text())
                }
            }
        }
        self.child.wait().expect("a child of ours")
    }

    /// SIGKILL: no last words.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child of ours that was not waited for");
    }

    /// The end of what it wrote on standard error.
    pub(crate) fn log_text(&self) -> String {
        tail_of(&self.log)
    }

    /// User and system time of the process so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("Linux' /proc");
        // The command's name may contain blanks, but it is the only field in brackets.
        let fields: Vec<&str> =
            text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number of clock ticks");
        // Fields 14 and 15 of the line; the first after the bracket is field 3. Linux counts 100 a second.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("Linux' /proc");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a living process");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL as well.
        self.kill();
    }
}

fn tail_of(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
