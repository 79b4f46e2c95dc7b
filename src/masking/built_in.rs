//! The rules that tracelake brings along. Each prefers to miss what is oddly written over seeing numbers of all kinds as
//! somebody's: what has check digits is checked, and nothing is found inside a longer word or number.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Digits below which no number of a person's is sought.
const DIGITS_MIN: usize = 8;
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltIn {
    Email,
    Phone,
    Cpf,
    CreditCard,
    ApiKey,
}

fn expression(text: &str) -> Regex {
    Regex::new(text).expect("a test compiles them all")
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?(?:\.[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?)+",
    )
});

/// With a country code, or as they are written in Brazil and North America; bare digits only as `55` and a mobile number,
/// which is how messengers name people.
static PHONE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?x)
        \+[0-9]{1,3}[\x20.-]?(?:\([0-9]{1,4}\)[\x20.-]?)?[0-9]{1,5}(?:[\x20.-]?[0-9]{2,5}){1,4}
        | \([0-9]{2}\)\x20?9?[0-9]{4}[\x20.-]?[0-9]{4}
        | \([0-9]{3}\)\x20?[0-9]{3}[\x20.-][0-9]{4}
        | [0-9]{2}[\x20.-]9[0-9]{4}[\x20.-][0-9]{4}
        | [0-9]{3}[.-][0-9]{3}[.-][0-9]{4}
        | 55[1-9]{2}9[0-9]{8}",
    )
});

static CPF: LazyLock<Regex> =
    LazyLock::new(|| expression(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{9}-[0-9]{2}|[0-9]{11}"));

/// Digits that may be a card's, with others before and after.
static CARD: LazyLock<Regex> = LazyLock::new(|| expression(r"[0-9](?:[\x20-]?[0-9]){12,}"));

static API_KEY: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?x)
        sk-[A-Za-z0-9_-]{20,}                                      # OpenAI, Anthropic, OpenRouter, Langfuse
        | (?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,} | whsec_[A-Za-z0-9+/]{16,}             # Stripe
        | (?:AKIA|ASIA)[0-9A-Z]{16}                                # AWS
        | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{22,} | glpat-[A-Za-z0-9_-]{20,}
        | AIza[0-9A-Za-z_-]{35}                                    # Google
        | xox[abeprs]-[A-Za-z0-9-]{10,}                            # Slack
        | hf_[A-Za-z0-9]{30,} | gsk_[A-Za-z0-9]{40,} | npm_[A-Za-z0-9]{36}
        | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}               # SendGrid
        | eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}                   # JSON web tokens
        | (?i:bearer)\x20+[A-Za-z0-9._~+/-]{20,}=*
        | -----BEGIN\x20[A-Z\x20]*PRIVATE\x20KEY-----[A-Za-z0-9+/=\s]*(?:-----END\x20[A-Z\x20]*PRIVATE\x20KEY-----)?",
    )
});

impl BuiltIn {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Email, Self::Phone, Self::Cpf, Self::CreditCard, Self::ApiKey];
        super::BUILT_IN.iter().position(|known| *known == word).map(|at| all[at])
    }

    /// Where it stands in `text`, in order.
    pub(super) fn find(self, text: &str, found: &mut Vec<Range<usize>>) {
        let has_digits = || digits(text).nth(DIGITS_MIN - 1).is_some();
        match self {
            Self::Email if text.contains('@') => found.extend(EMAIL.find_iter(text).map(|hit| hit.range())),
            Self::ApiKey => alone(&API_KEY, text, found, |_, _| true),
            Self::Phone if has_digits() => {
                alone(&PHONE, text, found, |_, hit| (8..=15).contains(&digits(hit).count()));
            }
            Self::Cpf if has_digits() => alone(&CPF, text, found, |before, hit| {
                // Without its points it may be the tail of a decimal or a part of an id.
                let is_part = hit.len() == 11 && before.is_some_and(|before| ['.', '-', ','].contains(&before));
                !is_part && is_cpf(hit)
            }),
            Self::CreditCard if has_digits() => {
                CARD.find_iter(text).for_each(|run| cards(text, run.range(), found));
            }
            _ => {}
        }
    }

    /// What several ways of writing the same have in common: by it they are hashed.
    pub(super) fn plain(self, found: &str) -> String {
        match self {
            Self::Email => found.to_lowercase(),
            Self::ApiKey => found.to_owned(),
            Self::Phone | Self::Cpf | Self::CreditCard => digits(found).map(|digit| char::from(b'0' + digit)).collect(),
        }
    }
}

fn digits(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0')
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The hits that are not a part of a longer word and that `is_real` takes for what they look like; it is told what stands
/// before them.
fn alone(expression: &Regex, text: &str, found: &mut Vec<Range<usize>>, is_real: impl Fn(Option<char>, &str) -> bool) {
    for hit in expression.find_iter(text) {
        let (before, after) = (text[..hit.start()].chars().next_back(), text[hit.end()..].chars().next());
        if !is_word(before) && !is_word(after) && is_real(before, hit.as_str()) {
            found.push(hit.range());
        }
    }
}

fn is_cpf(text: &str) -> bool {
    let digits: Vec<u32> = digits(text).map(u32::from).collect();
    let check = |count: usize| {
        let sum: u32 =
            digits[..count].iter().zip((2..=count as u32 + 1).rev()).map(|(digit, weight)| digit * weight).sum();
        sum * 10 % 11 % 10
    };
    let is_one_digit = digits.iter().all(|digit| *digit == digits[0]);
    digits.len() == 11 && !is_one_digit && check(9) == digits[9] && check(10) == digits[10]
}

/// The cards in a run of digits: groups next to each other that pass the check of their last digit.
fn cards(text: &str, run: Range<usize>, found: &mut Vec<Range<usize>>) {
    if is_word(text[..run.start].chars().next_back()) || is_word(text[run.end..].chars().next()) {
        return;
    }
    let groups: Vec<Range<usize>> = groups(&text[run.clone()]);
    let mut first = 0;
    while first < groups.len() {
        let mut card = None;
        let mut count = 0;
        for (last, group) in groups.iter().enumerate().skip(first) {
            count += group.len();
            if count > *CARD_DIGITS.end() {
                break;
            }
            let range = run.start + groups[first].start..run.start + group.end;
            if CARD_DIGITS.contains(&count) && is_card(&text[range.clone()]) {
                card = Some((last, range));
            }
        }
        first = match card {
            Some((last, range)) => {
                found.push(range);
                last + 1
            }
            None => first + 1,
        };
    }
}

fn groups(run: &str) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for at in run.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(at, _)| at) {
        match groups.last_mut() {
            Some(group) if group.end == at => group.end += 1,
            _ => groups.push(at..at + 1),
        }
    }
    groups
}

/// Of an issuer there is, and with a right last digit (Luhn).
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = digits(text).map(u32::from).collect();
    let begins = |count: usize| digits[..count].iter().fold(0, |number, digit| number * 10 + digit);
    let is_issued = matches!(begins(1), 4)
        || matches!(begins(2), 34 | 36..=39 | 50..=59 | 60..=69)
        || matches!(begins(3), 300..=305)
        || matches!(begins(4), 2221..=2720 | 3528..=3589);
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 1 { doubled(*digit) } else { *digit }).sum();
    let is_one_digit = digits.iter().all(|digit| *digit == digits[0]);
    is_issued && !is_one_digit && sum.is_multiple_of(10)
}
