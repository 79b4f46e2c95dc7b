//! Where a rule looks: a field, or what stands below a key of one.
//!
//! A path goes through lists as if they were not there, so that `input.messages.content` names the content of every
//! message; `*` stands for any one key.

/// Fields that hold keys or JSON: a path may go on below them.
const DEEP: [Field; 4] = [Field::Input, Field::Output, Field::Metadata, Field::Attributes];

macro_rules! fields {
    ($($variant:ident => $word:literal),+ $(,)?) => {
        /// A field of an observation, a trace or a score in which text may stand.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant),+ }

        impl Field {
            const ALL: &[(Field, &str)] = &[$((Field::$variant, $word)),+];
        }
    };
}

fields! {
    Input => "input",
    Output => "output",
    Metadata => "metadata",
    Attributes => "attributes",
    ModelParameters => "model_parameters",
    StatusMessage => "status_message",
    Stacktrace => "exception_stacktrace",
    ErrorType => "error_type",
    Name => "name",
    UserId => "user_id",
    SessionId => "session_id",
    Tags => "tags",
    Comment => "comment",
    StringValue => "string_value",
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttributePath {
    pub(super) field: Field,
    /// What comes after the field, with its dots; empty: the field itself.
    pub(super) below: String,
}

impl AttributePath {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (word, below) = text.split_once('.').unwrap_or((text, ""));
        let Some((field, _)) = Field::ALL.iter().find(|(_, known)| *known == word) else {
            let known: Vec<&str> = Field::ALL.iter().map(|(_, word)| *word).collect();
            return Err(format!("{text:?} begins with no field: use one of {}", known.join(", ")));
        };
        let keyed = DEEP.contains(field) || *field == Field::ModelParameters;
        if !below.is_empty() && !keyed {
            return Err(format!("{text:?}: nothing stands below {word}"));
        }
        if text.split('.').any(str::is_empty) {
            return Err(format!("{text:?} has an empty part"));
        }
        Ok(Self { field: *field, below: below.to_owned() })
    }
}

/// How far a path has come on its way down: what is left of it, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way<'a> {
    /// The place of its rule.
    pub(super) rule: usize,
    /// Empty: it has arrived.
    pub(super) left: &'a str,
}

impl<'a> Way<'a> {
    /// Below a key of JSON.
    pub(super) fn below(self, key: &str) -> Option<Self> {
        let (first, rest) = self.left.split_once('.').unwrap_or((self.left, ""));
        (!self.left.is_empty() && (first == key || first == "*")).then_some(Self { left: rest, ..self })
    }

    /// Below a key of metadata or attributes, which may have dots in it.
    pub(super) fn below_flat(self, key: &str) -> Option<Self> {
        let whole = self.left.strip_prefix(key).and_then(|rest| match rest {
            "" => Some(""),
            rest => rest.strip_prefix('.'),
        });
        match whole {
            Some(left) if !key.is_empty() => Some(Self { left, ..self }),
            _ => self.below(key),
        }
    }
}
