//! The prompt: line editing, history between runs, completion, hints.

use std::borrow::Cow;
use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustyline::completion::Completer;
use rustyline::config::{Behavior, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::Client;
use super::commands;
use super::print::Format;
use super::shell::{Next, Status, Written, notice, run_line, write_reply};

/// Lines kept in the history.
const HISTORY_COUNT_MAX: usize = 10_000;
/// A command that takes longer is worth a remark.
const SLOW: Duration = Duration::from_millis(500);

/// Reads and runs lines until EXIT or the end of the input.
pub(super) fn run(client: &mut Client, format: Format, out: &mut impl Write) -> Status {
    let mut editor = match editor() {
        Ok(editor) => editor,
        Err(error) => {
            notice(&format!("terminal: {error}"));
            return Status::Usage;
        }
    };
    let history =
        history_path(env::var_os("XDG_STATE_HOME"), env::var_os("HOME")).filter(|path| prepare(path));
    if let Some(path) = &history {
        // At the first start there is none.
        let _ = editor.load_history(path);
    }
    loop {
        let prompt = match client.connected_to() {
            Some(address) => format!("{address}> "),
            None => "lanekv> ".to_owned(),
        };
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            // A line is given up, as in every shell; without one, the user wants to leave.
            Err(ReadlineError::Interrupted) => match editor.helper() {
                Some(helper) if helper.line_is_empty.get() => return Status::Success,
                _ => continue,
            },
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                notice("the line is given up: not UTF-8; in double quotes, \\xHH stands for any byte");
                continue;
            }
            Err(ReadlineError::Eof) => return Status::Success,
            Err(error) => {
                notice(&format!("terminal: {error}"));
                return Status::Usage;
            }
        };
        if is_memorable(&line)
            && editor.add_history_entry(&line).unwrap_or(false)
            && let Some(path) = &history
        {
            // At once, so that a killed client and a second one beside it lose nothing.
            let _ = editor.append_history(path);
        }
        let start = Instant::now();
        match run_line(client, format, line.as_bytes()) {
            None => {}
            Some(Next::Leave) => return Status::Success,
            Some(Next::Failed(error)) => notice(&error.to_string()),
            Some(Next::Print(bytes, _)) => {
                if !matches!(write_reply(out, &bytes), Written::Done) {
                    return Status::Success;
                }
                if start.elapsed() >= SLOW {
                    let _ = writeln!(io::stderr(), "({:.2}s)", start.elapsed().as_secs_f64());
                }
            }
        }
    }
}

fn editor() -> rustyline::Result<Editor<PromptHelper, FileHistory>> {
    // The prompt must not get among the replies when those go to a file.
    let behavior = if io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
    let config = Config::builder()
        .behavior(behavior)
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_COUNT_MAX)?
        .history_ignore_space(true)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(PromptHelper { line_is_empty: Cell::new(true) }));
    Ok(editor)
}

/// Where the history lives: state, not configuration, by the XDG base directory specification.
fn history_path(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let state = state_home.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state
        .or_else(|| home.filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".local/state")))?;
    Some(state.join("lanekv/history"))
}

/// Makes the history's directory, for the user alone; values are nobody else's business.
fn prepare(path: &Path) -> bool {
    let Some(directory) = path.parent() else { return false };
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Ok(()) => true,
        Err(error) => {
            notice(&format!("no history: {}: {error}", directory.display()));
            false
        }
    }
}

/// Whether a line may be kept: passwords may not.
fn is_memorable(line: &str) -> bool {
    !line.trim().is_empty() && !line.split_whitespace().take(3).any(|word| word.eq_ignore_ascii_case("AUTH"))
}

/// Completes names and hints at arguments, from the table of commands.
struct PromptHelper {
    /// Whether there was anything on the line when it was last shown.
    line_is_empty: Cell<bool>,
}

impl Helper for PromptHelper {}
impl Validator for PromptHelper {}

impl Completer for PromptHelper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line.get(..pos).unwrap_or("")))
    }
}

impl Hinter for PromptHelper {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        self.line_is_empty.set(line.is_empty());
        if pos < line.len() { None } else { hint(line) }
    }
}

impl Highlighter for PromptHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        // Grey: it is not part of the line.
        Cow::Owned(format!("\x1b[90m{hint}\x1b[m"))
    }
}

/// The names that the word under way may become, and where it begins: a command, or the argument of HELP.
fn complete(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(' ').map_or(0, |space| space + 1);
    let (before, word) = line.split_at(start);
    let before = before.trim();
    if !before.is_empty() && !before.eq_ignore_ascii_case("help") {
        return (start, Vec::new());
    }
    let lower = word.starts_with(|c: char| c.is_ascii_lowercase());
    let upper = word.to_ascii_uppercase();
    let names = commands::all().map(|command| command.name).filter(|name| name.starts_with(&upper));
    let mut names: Vec<String> =
        names.map(|name| if lower { name.to_ascii_lowercase() } else { name.to_owned() }).collect();
    names.sort_unstable();
    (start, names)
}

/// The arguments that are still to come.
fn hint(line: &str) -> Option<String> {
    let name = line.split_whitespace().next()?;
    let given = line.split_whitespace().count() - 1;
    let command = commands::lookup(name.as_bytes())?;
    if given > 0 && !line.ends_with(' ') {
        return None;
    }
    let parameters = command.parameters();
    let more = parameters.last().filter(|last| last.ends_with("...]"));
    let rest = match parameters.get(given..) {
        Some(rest) if !rest.is_empty() => rest.join(" "),
        _ => (*more?).to_owned(),
    };
    Some(if line.ends_with(' ') { rest } else { format!(" {rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_in_the_case_of_the_word() {
        assert_eq!(complete("gets"), (0, vec!["getset".to_owned()]));
        assert_eq!(complete("Rena"), (0, vec!["RENAME".to_owned(), "RENAMENX".to_owned()]));
        assert_eq!(complete("DECRB"), (0, vec!["DECRBY".to_owned()]));
        assert_eq!(complete("help pi"), (5, vec!["ping".to_owned()]));
        assert_eq!(complete("get pi"), (4, vec![]));
    }

    #[test]
    fn hints_show_what_is_missing() {
        assert_eq!(hint("touch").as_deref(), Some(" key [key ...]"));
        assert_eq!(hint("cas ").as_deref(), Some("key expected new"));
        assert_eq!(hint("set k").as_deref(), None);
        assert_eq!(hint("cas k ").as_deref(), Some("expected new"));
        assert_eq!(hint("cas k v w "), None);
        assert_eq!(hint("touch a b c ").as_deref(), Some("[key ...]"));
        assert_eq!(hint("dbsize "), None);
        assert_eq!(hint("unheard"), None);
        assert_eq!(hint(""), None);
    }

    #[test]
    fn history_is_state_and_passwords_are_not_kept() {
        let path = |state: Option<&str>, home: Option<&str>| {
            history_path(state.map(Into::into), home.map(Into::into))
        };
        assert_eq!(path(Some("/s"), Some("/h")), Some("/s/lanekv/history".into()));
        assert_eq!(path(Some("relative"), Some("/h")), Some("/h/.local/state/lanekv/history".into()));
        assert_eq!(path(None, Some("")), None);
        assert!(is_memorable("get a") && is_memorable("get \"a"));
        assert!(!is_memorable("auth \"secret") && !is_memorable("hello 3 AUTH u p") && !is_memorable("  "));
    }
}
