//! Finding the end of a line in bytes that arrive in pieces.

/// How a line ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// CR LF: a program, or telnet.
    CrLf,
    /// A bare LF: somebody at `nc`.
    Lf,
}

/// What is found of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line<'a> {
    /// All of it.
    Whole {
        /// Without the ending.
        content: &'a [u8],
        ending: Ending,
        /// Where the next line begins.
        next: usize,
    },
    /// Not yet its end.
    Partial,
    /// More than allowed, whether the end is there or not.
    TooLong,
}

/// Reads the line that begins at `start`, in which there is no end before `scanned`. What it says does not depend on
/// how much of what follows the line is there.
pub(super) fn read_line(input: &[u8], start: usize, scanned: usize, len_max: usize) -> Line<'_> {
    // The longest content, CR, LF.
    let limit = start.saturating_add(len_max).saturating_add(2);
    let window = &input[..input.len().min(limit)];
    let from = scanned.max(start).min(window.len());
    let Some(at) = window[from..].iter().position(|&byte| byte == b'\n') else {
        return if window.len() == limit { Line::TooLong } else { Line::Partial };
    };
    let end = from + at;
    let (content, ending) = match input[start..end].strip_suffix(b"\r") {
        Some(content) => (content, Ending::CrLf),
        None => (&input[start..end], Ending::Lf),
    };
    if content.len() > len_max {
        return Line::TooLong;
    }
    Line::Whole { content, ending, next: end + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_in_whatever_pieces_the_line_comes() {
        for (text, expected) in [
            ("abc\r\nx", Line::Whole { content: b"abc", ending: Ending::CrLf, next: 5 }),
            ("abc\nx", Line::Whole { content: b"abc", ending: Ending::Lf, next: 4 }),
            ("\n", Line::Whole { content: b"", ending: Ending::Lf, next: 1 }),
            ("\r\n", Line::Whole { content: b"", ending: Ending::CrLf, next: 2 }),
            ("a\r\r\n", Line::Whole { content: b"a\r", ending: Ending::CrLf, next: 4 }),
            ("abcd\n", Line::TooLong),
            ("abcd\r\n", Line::TooLong),
            ("abcdefgh", Line::TooLong),
            ("abc\r", Line::Partial),
            ("", Line::Partial),
        ] {
            let text = text.as_bytes();
            let mut scanned = 0;
            let found = (0..=text.len()).map(|len| {
                let line = read_line(&text[..len], 0, scanned, 3);
                scanned = len;
                line
            });
            let last = found.into_iter().find(|line| *line != Line::Partial).unwrap_or(Line::Partial);
            assert_eq!(last, expected, "{}", text.escape_ascii());
            assert_eq!(read_line(text, 0, 0, 3), expected, "{}", text.escape_ascii());
        }
    }
}
