//! What a chat adds to its texts. By OpenAI's own account (its cookbook, "How to count tokens with tiktoken"): three tokens
//! around each message beside those of its role and content, one more for a name, and three that begin the answer.
//!
//! JSON is read into what is counted and nothing else, so that a sender's JSON takes no more than some ten times the memory
//! of its text.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Vocabulary;

const AROUND_MESSAGE: i64 = 3;
const BEFORE_NAME: i64 = 1;
const BEFORE_ANSWER: i64 = 3;

/// Others (`tool`, `function`) come with what no text shows.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];
/// Kinds of a message's parts that are text, in the spellings of OpenAI's two interfaces and of OpenTelemetry.
const TEXT_PARTS: [&str; 3] = ["text", "input_text", "output_text"];

/// A request as some instrumentations keep it whole.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    tools: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    functions: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    system: Option<IgnoredAny>,
    #[serde(default)]
    instructions: Option<IgnoredAny>,
    #[serde(default)]
    response_format: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    /// OpenTelemetry's.
    #[serde(borrow, default)]
    parts: Option<&'a RawValue>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
    #[serde(default)]
    audio: Option<IgnoredAny>,
    #[serde(default)]
    refusal: Option<IgnoredAny>,
    #[serde(default)]
    reasoning_content: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    text: Option<Cow<'a, str>>,
    #[serde(default)]
    content: Option<Cow<'a, str>>,
}

pub(super) fn prompt(vocabulary: Vocabulary, text: &str) -> Option<i64> {
    let messages: Vec<Message<'_>> = match first(text) {
        Some('[') => read(text)?,
        Some('{') => {
            let payload: Payload<'_> = read(text)?;
            let has_tools = [payload.tools, payload.functions].iter().flatten().any(|tools| !tools.is_empty());
            let more = [payload.system, payload.instructions, payload.response_format];
            (!has_tools && more.iter().all(Option::is_none)).then_some(payload.messages)?
        }
        _ => return Some(vocabulary.tokens(text)),
    };
    if messages.is_empty() {
        return None;
    }
    messages.iter().try_fold(BEFORE_ANSWER, |tokens, message| Some(tokens + message.tokens(vocabulary)?))
}

pub(super) fn answer(vocabulary: Vocabulary, text: &str) -> Option<i64> {
    match first(text) {
        Some('[') => match read::<Vec<Message<'_>>>(text)?.as_slice() {
            [message] => message.content(vocabulary),
            _ => None,
        },
        Some('{') => read::<Message<'_>>(text)?.content(vocabulary),
        _ => Some(vocabulary.tokens(text)),
    }
}

pub(super) fn embedded(vocabulary: Vocabulary, text: &str) -> Option<i64> {
    match first(text) {
        Some('[') => {
            let texts: Vec<Cow<'_, str>> = read(text)?;
            (!texts.is_empty()).then(|| texts.iter().map(|text| vocabulary.tokens(text)).sum())
        }
        Some('{') => None,
        _ => Some(vocabulary.tokens(text)),
    }
}

impl Message<'_> {
    fn tokens(&self, vocabulary: Vocabulary) -> Option<i64> {
        ROLES.contains(&self.role.as_ref()).then_some(())?;
        let name = self.name.as_deref().map_or(0, |name| BEFORE_NAME + vocabulary.tokens(name));
        Some(AROUND_MESSAGE + vocabulary.tokens(&self.role) + name + self.content(vocabulary)?)
    }

    /// The tokens of its text, if text is all it has.
    fn content(&self, vocabulary: Vocabulary) -> Option<i64> {
        let more = [&self.function_call, &self.audio, &self.refusal, &self.reasoning_content];
        if more.into_iter().any(Option::is_some) || self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) {
            return None;
        }
        match (self.content, self.parts) {
            (Some(content), None) if first(content.get()) == Some('"') => {
                Some(vocabulary.tokens(&read::<Cow<'_, str>>(content.get())?))
            }
            (Some(parts), None) => parts_of(parts)?.iter().map(|part| part.tokens(vocabulary, &part.text)).sum(),
            (None, Some(parts)) => parts_of(parts)?.iter().map(|part| part.tokens(vocabulary, &part.content)).sum(),
            _ => None,
        }
    }
}

impl Part<'_> {
    fn tokens(&self, vocabulary: Vocabulary, text: &Option<Cow<'_, str>>) -> Option<i64> {
        TEXT_PARTS.contains(&self.kind.as_ref()).then_some(())?;
        text.as_deref().map(|text| vocabulary.tokens(text))
    }
}

fn parts_of(parts: &RawValue) -> Option<Vec<Part<'_>>> {
    read(parts.get())
}

fn first(text: &str) -> Option<char> {
    text.trim_start().chars().next()
}

/// None: it is not this, or was cut before it came here.
fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}
