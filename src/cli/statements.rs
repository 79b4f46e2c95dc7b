//! Where one SQL statement ends and the next begins: at a `;` outside quotes and comments.

/// The complete statements, without their `;`, and what is left over for the next line.
pub(super) fn split(text: &str) -> (Vec<&str>, &str) {
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of(bytes, at + 1, &[quote]),
            b'-' if bytes[at..].starts_with(b"--") => at = end_of(bytes, at + 2, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => at = end_of(bytes, at + 2, b"*/"),
            b';' => {
                let statement = text[start..at].trim();
                if !statement.is_empty() {
                    statements.push(statement);
                }
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    (statements, &text[start..])
}

/// The place after the next `mark`, or the end of the text. A doubled quote ends one string and begins another: the same.
fn end_of(bytes: &[u8], from: usize, mark: &[u8]) -> usize {
    let found = bytes[from..].windows(mark.len()).position(|window| window == mark);
    found.map_or(bytes.len(), |place| from + place + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        for (text, statements, rest) in [
            ("select 1; select 2;", vec!["select 1", "select 2"], ""),
            ("select 1", vec![], "select 1"),
            ("select ';' ; x", vec!["select ';'"], " x"),
            ("select 'it''s;', \"a;b\";", vec!["select 'it''s;', \"a;b\""], ""),
            ("select 1 -- no; not here\n;", vec!["select 1 -- no; not here"], ""),
            ("/* a; b */ select 1;;", vec!["/* a; b */ select 1"], ""),
            ("select 'open;", vec![], "select 'open;"),
            ("select 'é;ü';", vec!["select 'é;ü'"], ""),
            ("/*", vec![], "/*"),
        ] {
            assert_eq!(split(text), (statements, rest), "{text}");
        }
    }
}
