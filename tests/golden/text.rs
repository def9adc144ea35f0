//! Things as words of a script, and back.

use lanekv::protocol::{Message, Report};
use lanekv::types::{Batch, ViewNumber};
use lanekv::wire::batch::BatchReader;

/// Longer words are written as one letter and how often it stands there.
const WORD_LEN_MAX: usize = 32;

/// Where a node stands.
pub(super) fn report_line(report: &Report, applied: &[String]) -> String {
    let mut text = format!(
        "in {} senders={} hears={} delivered={} applied=[{}]",
        report.view,
        report.senders,
        report.hears,
        report.delivered,
        applied.join(" ")
    );
    for (flag, word) in [
        (report.view == ViewNumber(0), " unfounded"),
        (report.sealed, " sealed"),
        (report.serving, " serving"),
    ] {
        if flag {
            text.push_str(word);
        }
    }
    text
}

/// The kind of a line: what a script names it by.
pub(super) fn first_word(what: &impl ToString) -> String {
    let text = what.to_string();
    text.split([' ', ',']).next().unwrap_or_default().to_owned()
}

/// The commands of a batch as a script wrote them.
pub(super) fn words(batch: &Batch) -> String {
    let commands = BatchReader::new(batch).map(|command| {
        let command = command.expect("scripts offer well-formed batches");
        command.arguments.iter().map(|a| shortened(&String::from_utf8_lossy(a))).collect::<String>()
    });
    commands.collect::<Vec<_>>().join(" ")
}

/// `x*5` stands for `xxxxx`.
pub(super) fn written_out(word: &str) -> String {
    match word.split_once('*').and_then(|(text, count)| Some((text, count.parse().ok()?))) {
        Some((text, count)) => text.repeat(count),
        None => word.to_owned(),
    }
}

/// The other way round, for words that nobody wants to read.
fn shortened(word: &str) -> String {
    match word.get(..1) {
        Some(first) if word.len() > WORD_LEN_MAX => format!("{first}*{}", word.len()),
        _ => word.to_owned(),
    }
}

/// The commands that a message carries, after a space.
pub(super) fn words_of(message: &Message) -> String {
    let batch = match message {
        Message::Append(entry) => &entry.batch,
        Message::Forward { batch, .. } => batch,
        _ => return String::new(),
    };
    format!(" {}", words(batch))
}
