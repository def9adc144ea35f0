//! Patterns of `KEYS`, with Redis' meaning.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-z]` one of these, `[^a]` one that is not, `\x` the byte `x` itself. A
//! class that is not closed ends with the pattern.
//!
//! Only the last `*` is ever tried again: if what follows it does not fit, an earlier star could only have eaten
//! bytes that the last one may eat as well. So there is one place to go back to instead of a tree of them, and
//! the work is at most pattern times text. Even that can be much, so the caller hands in a budget of steps.

/// What is left of the steps that a command may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StepBudget(pub(crate) u64);

/// More steps were needed than there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfSteps;

impl StepBudget {
    fn spend(&mut self, steps: usize) -> Result<(), OutOfSteps> {
        self.0 = self.0.checked_sub(steps as u64).ok_or(OutOfSteps)?;
        Ok(())
    }
}

/// Whether all of `text` fits `pattern`. How many steps are spent depends on nothing else.
pub(crate) fn matches(pattern: &[u8], text: &[u8], budget: &mut StepBudget) -> Result<bool, OutOfSteps> {
    let (mut p, mut t) = (0, 0);
    // After the last star: the place behind it, and the place in the text up to which it has eaten.
    let mut star: Option<(usize, usize)> = None;
    loop {
        budget.spend(1)?;
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return Ok(true);
            }
            star = Some((p, t));
            continue;
        }
        let fits = match (pattern.get(p), text.get(t)) {
            (None, None) => return Ok(true),
            (Some(_), Some(&byte)) => {
                let (next, fits) = element(pattern, p, byte);
                budget.spend(next - p)?;
                if fits {
                    p = next;
                    t += 1;
                }
                fits
            }
            // The text is used up; a star that eats more of it leaves still less for the rest.
            (Some(_), None) => return Ok(false),
            (None, Some(_)) => false,
        };
        if !fits {
            let Some((behind, eaten)) = star else {
                return Ok(false);
            };
            star = Some((behind, eaten + 1));
            p = behind;
            t = eaten + 1;
        }
    }
}

/// The end of the element of the pattern that begins at `p`, which is no star, and whether `byte` fits it.
fn element(pattern: &[u8], p: usize, byte: u8) -> (usize, bool) {
    match pattern[p] {
        b'?' => (p + 1, true),
        b'[' => class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (p + 2, pattern[p + 1] == byte),
        literal => (p + 1, literal == byte),
    }
}

/// The same for a class; `p` is behind the bracket.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> (usize, bool) {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    loop {
        match pattern[p.min(pattern.len())..] {
            [] => return (pattern.len(), found != negated),
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                p += 2;
            }
            [b']', ..] => return (p + 1, found != negated),
            [from, b'-', to, ..] => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                p += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                p += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::SplitMix;

    fn fits(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), &mut StepBudget(10_000)).expect("short")
    }

    #[test]
    fn patterns_mean_what_they_mean_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("***", "abc", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[]llo", "hllo", false),
            ("h[^]llo", "hxllo", true),
            ("h[a", "ha", true),
            ("h[", "ha", false),
            ("h[^", "ha", true),
            ("[\\]]", "]", true),
            ("[a-", "-", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
            ("user:*:name", "user:17:name", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// The definition, word for word, with a tree of attempts.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|eaten| naive(rest, &text[eaten..])),
            (_, []) => false,
            (_, [byte, text @ ..]) => {
                let (next, fits) = element(pattern, 0, *byte);
                fits && naive(&pattern[next..], text)
            }
        }
    }

    #[test]
    fn going_back_to_the_last_star_is_enough() {
        let mut random = SplitMix(42);
        let mut positive = 0;
        for _ in 0..50_000 {
            let pattern: Vec<u8> = (0..random.below(9)).map(|_| *random.pick(b"aab**?[]^-\\")).collect();
            let text: Vec<u8> = (0..random.below(8)).map(|_| *random.pick(b"aab-")).collect();
            let expected = naive(&pattern, &text);
            positive += u32::from(expected);
            let found = matches(&pattern, &text, &mut StepBudget(100_000));
            assert_eq!(found, Ok(expected), "{:?}", (pattern.escape_ascii(), text.escape_ascii()));
        }
        assert!((3_000..47_000).contains(&positive), "both outcomes occur: {positive}");
    }

    #[test]
    fn a_costly_pattern_runs_out_of_steps() {
        let pattern = "a*".repeat(1000) + "b";
        let text = "a".repeat(60_000);
        let mut budget = StepBudget(1 << 20);
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), &mut budget), Ok(false));
        let pattern = "*".to_owned() + &"a".repeat(30_000) + "b";
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), &mut budget), Err(OutOfSteps));
    }
}
