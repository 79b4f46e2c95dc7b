//! The web origins whose pages may ask, as browsers write them: scheme, host and port, and nothing behind.

use std::str::FromStr;

#[derive(Debug, Clone, PartialEq)]
pub struct Origins(pub Vec<String>);

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        origins.map(|origin| origin_of(origin).map(str::to_owned)).collect::<Result<_, _>>().map(Self)
    }
}

fn origin_of(text: &str) -> Result<&str, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let may_be = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || ".-:[]".contains(letter);
    match !host.is_empty() && host.chars().all(may_be) {
        true => Ok(text),
        // `*` least of all: answers go with credentials.
        false => Err(format!("{text:?} is no web origin: name each as browsers do, such as https://app.example:8443")),
    }
}
