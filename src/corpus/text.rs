//! What is said: prompts and answers of plausible length and compressibility. All of it is safe inside JSON quotes.

use super::TextSize;
use super::dice::Dice;

/// Most used first.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "the", "to", "and", "of", "a", "is", "in", "that", "for", "it", "your", "you", "with", "on", "this", "be", "are",
    "order", "customer", "please", "we", "can", "not", "as", "was", "have", "if", "from", "by", "or", "will", "an",
    "has", "request", "data", "answer", "at", "which", "model", "when", "time", "more", "one", "all", "account",
    "there", "been", "question", "use", "would", "should", "any", "about", "other", "into", "result", "value", "only",
    "also", "were", "after", "team", "price", "delivery", "invoice", "error", "report", "system", "user", "first",
    "next", "between", "change", "document", "support", "message", "days", "number", "service", "summary", "total",
    "before", "because", "following", "details", "payment", "product", "available", "week", "check", "address",
    "contract", "review", "policy", "language", "section", "current", "function", "return", "table", "query", "schema",
    "metric", "average", "latency", "quarter", "revenue", "region", "supplier", "warehouse", "shipment", "refund",
    "ticket", "escalate", "priority", "confirm", "schedule", "meeting", "attachment", "translate", "paragraph",
    "analysis", "hypothesis", "evidence", "source", "citation", "deadline", "budget", "estimate", "forecast", "threshold",
];

/// What a piece of text is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// An application's instructions.
    System,
    Question,
    Answer,
    ToolResult,
}

#[derive(Debug)]
pub(super) struct Writer {
    size: TextSize,
}

impl Writer {
    pub(super) fn new(size: TextSize) -> Self {
        Self { size }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.size == TextSize::None
    }

    pub(super) fn write(&self, piece: Piece, dice: &mut Dice) -> String {
        let bytes = self.bytes(piece, dice);
        let mut text = String::with_capacity(bytes + 16);
        let mut words_until_stop = 0;
        while text.len() < bytes {
            let (one, other) = (dice.below(WORDS.len() as u64), dice.below(WORDS.len() as u64));
            let word = WORDS[one.min(other) as usize];
            if words_until_stop == 0 {
                words_until_stop = dice.between(5, 18);
                let (first, rest) = word.split_at(1);
                text.push_str(if text.is_empty() { "" } else { ". " });
                text.extend(first.chars().map(|letter| letter.to_ascii_uppercase()));
                text.push_str(rest);
            } else {
                text.push(' ');
                text.push_str(word);
            }
            // Numbers and ids are what makes real text compress worse than words alone.
            if dice.below(24) == 0 {
                text.push_str(&format!(" {}", dice.below(1 << 30)));
            }
            words_until_stop -= 1;
        }
        text.push('.');
        text
    }

    fn bytes(&self, piece: Piece, dice: &mut Dice) -> usize {
        let (median, sigma) = match piece {
            Piece::System => (1_800.0, 0.8),
            Piece::Question => (900.0, 1.2),
            Piece::Answer => (800.0, 0.9),
            Piece::ToolResult => (1_100.0, 1.1),
        };
        match self.size {
            TextSize::None => 0,
            TextSize::Small => dice.between(24, 160) as usize,
            TextSize::Prompts => dice.lognormal(median, sigma).clamp(200.0, 50_000.0) as usize,
        }
    }
}
