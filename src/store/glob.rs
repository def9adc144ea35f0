//! Patterns of `KEYS`, with Redis' meaning.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-z]` one of these, `[^a]` one that is not, `\x` the byte `x` itself. A
//! class that is not closed ends with the pattern.
//!
//! Only the last `*` is ever tried again: if what follows it does not fit, an earlier star could only have eaten
//! bytes that the last one may eat as well. So there is one place to go back to instead of a tree of them, and
//! the work is at most pattern times text. Even that can be seconds for a single text, so the caller hands in a
//! budget of steps, each of which looks at one or two places of the pattern and one of the text. Where it ran out is
//! in the [`Matcher`], which goes on from there with the next budget.

/// What is left of the steps that may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepBudget(pub u64);

/// More steps are needed than there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfSteps;

impl StepBudget {
    /// For a pattern and the few short names that the program itself has.
    pub const FOR_NAMES: StepBudget = StepBudget(1 << 20);

    fn spend(&mut self) -> Result<(), OutOfSteps> {
        self.0 = self.0.checked_sub(1).ok_or(OutOfSteps)?;
        Ok(())
    }
}

/// How far one text has been compared with one pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Matcher {
    /// The place in the pattern.
    p: usize,
    /// The place in the text.
    t: usize,
    /// After the last star: the place behind it, and the place in the text up to which it has eaten.
    star: Option<(usize, usize)>,
    /// Within a class.
    class: Option<Class>,
}

/// A class of which some has been compared with one byte.
#[derive(Clone, Debug)]
struct Class {
    /// The place in the pattern.
    p: usize,
    negated: bool,
    found: bool,
}

/// Whether all of `text` fits `pattern`. How many steps are spent depends on nothing else.
pub(crate) fn matches(pattern: &[u8], text: &[u8], budget: &mut StepBudget) -> Result<bool, OutOfSteps> {
    Matcher::default().go_on(pattern, text, budget)
}

impl Matcher {
    /// Goes on with the same pattern and text and says whether all of the text fits. However the steps are shared out,
    /// it takes the same number of them.
    pub(super) fn go_on(
        &mut self,
        pattern: &[u8],
        text: &[u8],
        budget: &mut StepBudget,
    ) -> Result<bool, OutOfSteps> {
        loop {
            budget.spend()?;
            let (p, byte) = (self.p, text.get(self.t));
            // Behind the element of the pattern that the byte fits.
            let next = match (pattern.get(p), byte) {
                (Some(b'*'), _) => {
                    if p + 1 == pattern.len() {
                        return Ok(true);
                    }
                    self.p += 1;
                    self.star = Some((self.p, self.t));
                    continue;
                }
                (None, None) => return Ok(true),
                (None, Some(_)) => None,
                // The text is used up; a star that eats more of it leaves still less for the rest.
                (Some(_), None) => return Ok(false),
                (Some(b'?'), _) => Some(p + 1),
                (Some(b'['), Some(byte)) => {
                    let class = self.class.get_or_insert_with(|| Class::begin(pattern, p + 1));
                    let Some((next, fits)) = class.step(pattern, *byte) else { continue };
                    self.class = None;
                    fits.then_some(next)
                }
                (Some(b'\\'), Some(byte)) if p + 1 < pattern.len() => {
                    (pattern[p + 1] == *byte).then_some(p + 2)
                }
                (Some(literal), Some(byte)) => (literal == byte).then_some(p + 1),
            };
            if let Some(next) = next {
                self.p = next;
                self.t += 1;
            } else {
                let Some((behind, eaten)) = self.star else {
                    return Ok(false);
                };
                self.star = Some((behind, eaten + 1));
                self.p = behind;
                self.t = eaten + 1;
            }
        }
    }
}

impl Class {
    /// `p` is behind the bracket.
    fn begin(pattern: &[u8], p: usize) -> Class {
        let negated = pattern.get(p) == Some(&b'^');
        Class { p: p + usize::from(negated), negated, found: false }
    }

    /// Looks at its next part. At its end: the place behind it, and whether the byte fits.
    fn step(&mut self, pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
        match pattern[self.p.min(pattern.len())..] {
            [] => return Some((pattern.len(), self.found != self.negated)),
            [b'\\', escaped, ..] => {
                self.found |= escaped == byte;
                self.p += 2;
            }
            [b']', ..] => return Some((self.p + 1, self.found != self.negated)),
            [from, b'-', to, ..] => {
                self.found |= (from.min(to)..=from.max(to)).contains(&byte);
                self.p += 3;
            }
            [literal, ..] => {
                self.found |= literal == byte;
                self.p += 1;
            }
        }
        None
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

    /// The end of the element at the beginning of the pattern, which is no star, and whether `byte` fits it.
    fn element(pattern: &[u8], byte: u8) -> (usize, bool) {
        match pattern {
            [b'?', ..] => (1, true),
            [b'[', ..] => {
                let mut class = Class::begin(pattern, 1);
                std::iter::from_fn(|| Some(class.step(pattern, byte))).flatten().next().expect("an end")
            }
            [b'\\', escaped, ..] => (2, *escaped == byte),
            [literal, ..] => (1, *literal == byte),
            [] => (0, false),
        }
    }

    /// The definition, word for word, with a tree of attempts.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|eaten| naive(rest, &text[eaten..])),
            (_, []) => false,
            (_, [byte, text @ ..]) => {
                let (next, fits) = element(pattern, *byte);
                fits && naive(&pattern[next..], text)
            }
        }
    }

    /// So many steps at a time: the answer, and how many times.
    fn in_pieces(pattern: &[u8], text: &[u8], steps: u64) -> (bool, u64) {
        let mut matcher = Matcher::default();
        for times in 1.. {
            if let Ok(fits) = matcher.go_on(pattern, text, &mut StepBudget(steps)) {
                return (fits, times);
            }
        }
        unreachable!("numbers do not end")
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
            let mut budget = StepBudget(100_000);
            let found = matches(&pattern, &text, &mut budget);
            assert_eq!(found, Ok(expected), "{:?}", (pattern.escape_ascii(), text.escape_ascii()));
            let steps = 100_000 - budget.0;
            let at_a_time = 1 + random.below(3) as u64;
            assert_eq!(in_pieces(&pattern, &text, at_a_time), (expected, steps.div_ceil(at_a_time)));
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

    /// No single step is long, whatever it looks at.
    #[test]
    fn a_long_class_takes_a_step_for_each_part() {
        let pattern = "[".to_owned() + &"a".repeat(10_000) + "]";
        assert_eq!(in_pieces(pattern.as_bytes(), b"a", 1_000), (true, 11));
        assert_eq!(in_pieces(pattern.as_bytes(), b"b", 1_000), (false, 11));
    }
}
