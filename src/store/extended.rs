//! Floating point as `INCRBYFLOAT` of Redis has it: the 80-bit numbers of x87, 64 bits of significance, rounded to the
//! nearest, ties to even. Done in software, so that every node computes the same on whatever machine, and the same as
//! a Redis does on the most common one.
//!
//! Numbers are read and written exactly: a decimal is an integer times a power of ten, and integers of any length
//! are lists of 32-bit digits here. The exponent of a decimal is limited, so that no text makes long numbers.

use std::cmp::Ordering;

/// What x87 can hold: below 2^16384.
const EXPONENT_MAX: i64 = 16_384;
/// The smallest step: 2^-16445.
const EXPONENT_MIN: i64 = -16_445;
/// Decimal exponents beyond this are zero or infinite.
const DECIMAL_EXPONENT_MAX: i64 = 5_500;
/// Longest text that is read as a number, as in Redis.
const TEXT_LEN_MAX: usize = 5 << 10;

/// `±significand × 2^exponent`, the significand with its highest bit set, or zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extended {
    negative: bool,
    significand: u64,
    exponent: i64,
}

/// A text that is a number, but not one that can be computed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parsed {
    /// It is.
    Finite(Extended),
    /// Infinite by name; or a sum that is too large.
    Infinite,
}

impl Extended {
    pub(crate) const ZERO: Extended = Extended { negative: false, significand: 0, exponent: 0 };

    /// Reads a decimal number, with or without fraction and exponent. `None`: it is none.
    pub(crate) fn parse(text: &[u8]) -> Option<Parsed> {
        if text.len() >= TEXT_LEN_MAX {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if [&b"inf"[..], b"infinity"].iter().any(|word| word.eq_ignore_ascii_case(rest)) {
            return Some(Parsed::Infinite);
        }
        let (mut digits, mut scale, mut seen) = (Natural::default(), 0i64, false);
        let mut in_fraction = false;
        let mut rest = rest.iter();
        let mut exponent = 0;
        while let Some(&byte) = rest.next() {
            match byte {
                b'0'..=b'9' => {
                    digits.multiply_add(10, u32::from(byte - b'0'));
                    seen = true;
                    scale -= i64::from(in_fraction);
                }
                b'.' if !in_fraction => in_fraction = true,
                b'e' | b'E' if seen => {
                    exponent = parse_exponent(rest.as_slice())?;
                    break;
                }
                _ => return None,
            }
        }
        if !seen {
            return None;
        }
        let is_zero = digits.is_zero();
        match Extended::from_decimal(negative, digits, scale.saturating_add(exponent)) {
            // Beyond what can be held: as in Redis, no number.
            Parsed::Infinite => None,
            Parsed::Finite(number) if number.significand == 0 && !is_zero => None,
            parsed => Some(parsed),
        }
    }

    fn from_decimal(negative: bool, mut digits: Natural, scale: i64) -> Parsed {
        if digits.is_zero() {
            return Parsed::Finite(Extended { negative, significand: 0, exponent: 0 });
        }
        let len = digits.bit_len();
        // The text's digits are at most five thousand, so beyond this nothing is left to be decided.
        if scale > DECIMAL_EXPONENT_MAX {
            return Parsed::Infinite;
        }
        if scale < -2 * DECIMAL_EXPONENT_MAX {
            return Parsed::Finite(Extended { negative, significand: 0, exponent: 0 });
        }
        let mut exponent = 0;
        let mut sticky = false;
        if scale >= 0 {
            digits.multiply_power_of_ten(scale.unsigned_abs());
        } else {
            // Enough bits that the quotient has more than the 64 that are kept: 10^n has less than 4n.
            let places = scale.unsigned_abs();
            let shift = (4 * places + 80).saturating_sub(len);
            digits.shift_left(shift);
            exponent = -i64::try_from(shift).unwrap_or(i64::MAX);
            sticky = digits.divide_power_of_ten(places);
        }
        Extended::round(negative, &digits, exponent, sticky)
    }

    /// The nearest number to `digits × 2^exponent`, a little more if `sticky`.
    fn round(negative: bool, digits: &Natural, exponent: i64, sticky: bool) -> Parsed {
        let zero = Parsed::Finite(Extended { negative, significand: 0, exponent: 0 });
        let len = i64::try_from(digits.bit_len()).unwrap_or(i64::MAX);
        if len == 0 {
            return zero;
        }
        // So many bits go; where numbers get too small, more.
        let mut drop = (len - 64).max(EXPONENT_MIN - exponent);
        if drop > len + 1 {
            return zero;
        }
        let mut significand = digits.bits_from(drop);
        if drop > 0 {
            let half = digits.bit(drop - 1);
            let below = sticky || digits.any_below(drop - 1);
            if half && (below || significand & 1 == 1) {
                match significand.checked_add(1) {
                    Some(next) => significand = next,
                    None => {
                        significand = 1 << 63;
                        drop += 1;
                    }
                }
            }
        }
        if significand == 0 {
            return zero;
        }
        let zeros = significand.leading_zeros();
        let exponent = exponent + drop - i64::from(zeros);
        if exponent + 64 > EXPONENT_MAX {
            return Parsed::Infinite;
        }
        Parsed::Finite(Extended { negative, significand: significand << zeros, exponent })
    }

    /// The nearest number to the sum.
    pub(crate) fn add(self, other: Extended) -> Parsed {
        if self.significand == 0 || other.significand == 0 {
            let sum = if self.significand == 0 { other } else { self };
            return Parsed::Finite(sum);
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: Extended| {
            let mut natural = Natural::from_u64(number.significand);
            natural.shift_left((number.exponent - exponent).unsigned_abs());
            natural
        };
        let (mut a, mut b) = (aligned(self), aligned(other));
        if self.negative == other.negative {
            a.add(&b);
            return Extended::round(self.negative, &a, exponent, false);
        }
        match a.compare(&b) {
            Ordering::Equal => Parsed::Finite(Extended { negative: false, significand: 0, exponent: 0 }),
            Ordering::Greater => {
                a.subtract(&b);
                Extended::round(self.negative, &a, exponent, false)
            }
            Ordering::Less => {
                b.subtract(&a);
                Extended::round(other.negative, &b, exponent, false)
            }
        }
    }

    /// In decimal with at most 17 digits behind the point and no zeros at the end: what C writes for `%.17Lf`, cut.
    pub(crate) fn to_text(self) -> Vec<u8> {
        const PLACES: usize = 17;
        let mut digits = Natural::from_u64(self.significand);
        digits.multiply_power_of_ten(PLACES as u64);
        if self.exponent >= 0 {
            digits.shift_left(self.exponent.unsigned_abs());
        } else {
            digits.shift_right_rounding(self.exponent);
        }
        let mut text = digits.to_decimal();
        while text.len() <= PLACES {
            text.insert(0, b'0');
        }
        text.insert(text.len() - PLACES, b'.');
        while text.last() == Some(&b'0') {
            text.pop();
        }
        if text.last() == Some(&b'.') {
            text.pop();
        }
        if self.negative && text != b"0" {
            text.insert(0, b'-');
        }
        text
    }
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0i64, |size, digit| {
        size.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(4 * DECIMAL_EXPONENT_MAX)
    });
    Some(if negative { -size } else { size })
}

/// A natural number of any length: digits to the base 2^32, the lowest first, no zeros at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Natural(Vec<u32>);

impl Natural {
    fn from_u64(number: u64) -> Natural {
        let mut natural = Natural(vec![low(number), low(number >> 32)]);
        natural.trim();
        natural
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bit_len(&self) -> u64 {
        self.0.last().map_or(0, |top| 32 * self.0.len() as u64 - u64::from(top.leading_zeros()))
    }

    fn bit(&self, at: i64) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        self.0.get(at / 32).is_some_and(|digit| digit >> (at % 32) & 1 == 1)
    }

    /// Whether any bit below this one is set.
    fn any_below(&self, at: i64) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        let whole = (at / 32).min(self.0.len());
        self.0[..whole].iter().any(|digit| *digit != 0)
            || self.0.get(at / 32).is_some_and(|digit| digit & ((1 << (at % 32)) - 1) != 0)
    }

    /// The bits from this one on, of which there are at most 64; a negative place shifts to the left.
    fn bits_from(&self, at: i64) -> u64 {
        let mut bits = 0;
        let top = i64::try_from(self.bit_len()).unwrap_or(i64::MAX);
        for place in (at.max(0)..top).rev() {
            bits = bits << 1 | u64::from(self.bit(place));
        }
        if at < 0 { bits << at.unsigned_abs() } else { bits }
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for digit in &mut self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            *digit = low(carry);
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(low(carry));
        }
    }

    /// Divides and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for digit in self.0.iter_mut().rev() {
            rest = rest << 32 | u64::from(*digit);
            *digit = low(rest / u64::from(divisor));
            rest %= u64::from(divisor);
        }
        self.trim();
        low(rest)
    }

    fn multiply_power_of_ten(&mut self, mut power: u64) {
        while power > 0 {
            let step = power.min(9);
            self.multiply_add(power_of_ten(step), 0);
            power -= step;
        }
    }

    /// Divides and says whether anything remained.
    fn divide_power_of_ten(&mut self, mut power: u64) -> bool {
        let mut remained = false;
        while power > 0 {
            let step = power.min(9);
            remained |= self.divide(power_of_ten(step)) != 0;
            power -= step;
        }
        remained
    }

    fn shift_left(&mut self, bits: u64) {
        if self.is_zero() {
            return;
        }
        let whole = usize::try_from(bits / 32).expect("exponents are limited");
        self.multiply_add(1 << (bits % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, whole));
    }

    /// Multiplies by a negative power of two, rounded to the nearest, ties to even.
    fn shift_right_rounding(&mut self, exponent: i64) {
        let bits = -exponent;
        let up = self.bit(bits - 1) && (self.any_below(bits - 1) || self.bit(bits));
        let top = i64::try_from(self.bit_len()).unwrap_or(i64::MAX);
        let mut shifted = Natural(vec![0; usize::try_from((top - bits).max(0) / 32 + 1).unwrap_or(1)]);
        for place in bits..top {
            if self.bit(place) {
                let to = usize::try_from(place - bits).unwrap_or_default();
                shifted.0[to / 32] |= 1 << (to % 32);
            }
        }
        shifted.trim();
        shifted.multiply_add(1, u32::from(up));
        *self = shifted;
    }

    fn compare(&self, other: &Natural) -> Ordering {
        let len = self.0.len().cmp(&other.0.len());
        len.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    fn add(&mut self, other: &Natural) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        let mut carry = 0u64;
        for (i, digit) in self.0.iter_mut().enumerate() {
            carry += u64::from(*digit) + u64::from(other.0.get(i).copied().unwrap_or(0));
            *digit = low(carry);
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(low(carry));
        }
    }

    /// `other` must not be larger.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = 0i64;
        for (i, digit) in self.0.iter_mut().enumerate() {
            let difference = i64::from(*digit) - i64::from(other.0.get(i).copied().unwrap_or(0)) - borrow;
            borrow = i64::from(difference < 0);
            *digit = low(difference.rem_euclid(1 << 32).unsigned_abs());
        }
        self.trim();
    }

    fn to_decimal(&self) -> Vec<u8> {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.is_zero() {
            groups.push(rest.divide(1_000_000_000));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.into_iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text.into_bytes()
    }
}

fn power_of_ten(power: u64) -> u32 {
    (0..power).fold(1, |product, _| product * 10)
}

fn low(number: u64) -> u32 {
    u32::try_from(number & 0xffff_ffff).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let number = |text: &str| match Extended::parse(text.as_bytes()) {
            Some(Parsed::Finite(number)) => number,
            other => panic!("{text}: {other:?}"),
        };
        match number(a).add(number(b)) {
            Parsed::Finite(sum) => String::from_utf8(sum.to_text()).expect("digits"),
            Parsed::Infinite => "inf".to_owned(),
        }
    }

    /// As Redis 7.0 on x86-64 answers.
    #[test]
    fn sums_are_those_of_x87() {
        for (a, b, text) in [
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "0", "0"),
            ("-1", "1", "0"),
            ("3", "-3.25", "-0.25"),
            ("0.1", "0.2", "0.3"),
            ("1e18", "0.5", "1000000000000000000.5"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "2", "18446744073709551616"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            (".5", "1.", "1.5"),
            ("+7", "-0", "7"),
            ("1e-4900", "1", "1"),
            ("1e400", "-1e400", "0"),
        ] {
            assert_eq!(sum(a, b), text, "{a} + {b}");
        }
        assert_eq!(sum("1e4932", "1e4932"), "inf");
    }

    #[test]
    fn what_is_a_number() {
        for text in [
            "", "-", ".", "e5", "1e", "1e+", "1 ", " 1", "0x1", "1.2.3", "nan", "1_0", "infinit", "1e5000",
            "1e-9999",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        for text in ["inf", "-INF", "Infinity"] {
            assert_eq!(Extended::parse(text.as_bytes()), Some(Parsed::Infinite), "{text}");
        }
        assert_eq!(Extended::parse(&[b'1'; TEXT_LEN_MAX]), None);
        assert!(matches!(Extended::parse(&[b'1'; 4000]), Some(Parsed::Finite(_))));
    }
}
