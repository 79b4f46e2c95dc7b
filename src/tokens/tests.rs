use super::{Count, TEXT_BYTES_MAX, Vocabulary};
use Vocabulary::{Cl100kBase, O200kBase};

/// As OpenAI's cookbook gives them for both vocabularies.
#[test]
fn texts_have_the_tokens_that_openai_counts() {
    for (text, cl100k, o200k) in [
        ("", 0, 0),
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
    ] {
        assert_eq!((Cl100kBase.tokens(text), O200kBase.tokens(text)), (cl100k, o200k), "{text}");
    }
}

#[test]
fn models_have_the_vocabulary_of_their_family() {
    for (model, vocabulary) in [
        ("gpt-4o", Some(O200kBase)),
        ("gpt-4o-mini-2024-07-18", Some(O200kBase)),
        ("openai/gpt-4.1-nano", Some(O200kBase)),
        ("ft:gpt-4o-mini:acme::abc", Some(O200kBase)),
        ("chatgpt-4o-latest", Some(O200kBase)),
        ("GPT-4", Some(Cl100kBase)),
        ("gpt-4-turbo", Some(Cl100kBase)),
        ("azure/gpt-35-turbo-16k", Some(Cl100kBase)),
        ("text-embedding-3-small", Some(Cl100kBase)),
        ("gpt-4o-audio-preview", None),
        ("gpt-4o-mini-tts", None),
        ("gpt-4o-search-preview", None),
        // They think before they answer.
        ("gpt-5", None),
        ("o3-mini", None),
        ("gpt-4oh", None),
        ("claude-sonnet-4-5", None),
        ("llama-3-70b", None),
        ("", None),
    ] {
        assert_eq!(Vocabulary::of(model), vocabulary, "{model}");
    }
}

#[test]
fn a_prompt_is_its_messages_and_what_is_around_them() {
    let count = |text: &str| O200kBase.count_prompt(text);
    assert_eq!(count("hello world"), Count::Tokens(2));
    // 3 around the message, 1 for the role, 2 for the text, 3 that begin the answer.
    let hello = r#"[{"role": "user", "content": "hello world"}]"#;
    assert_eq!(count(hello), Count::Tokens(9));
    assert_eq!(count(&format!(r#"{{"messages": {hello}, "temperature": 1, "tools": []}}"#)), Count::Tokens(9));
    let parts =
        r#"[{"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": " world"}]}]"#;
    assert_eq!(count(parts), Count::Tokens(9));
    let of_opentelemetry = r#"[{"role": "user", "parts": [{"type": "text", "content": "hello world"}]}]"#;
    assert_eq!(count(of_opentelemetry), Count::Tokens(9));
    let named =
        r#"[{"role": "system", "content": "hello world", "name": "bob"}, {"role": "user", "content": "hello world"}]"#;
    assert_eq!(count(named), Count::Tokens(9 + 3 + 1 + 2 + 1 + 1));
    let more = r#"[{"role": "user", "content": "hello world", "refusal": null, "tool_calls": [], "id": {"any": [1]}}]"#;
    assert_eq!(count(more), Count::Tokens(9));
    assert_eq!(count(r#"[{"role": "user", "content": "hello\u0020world"}]"#), Count::Tokens(9));
}

#[test]
fn what_is_more_than_its_texts_is_not_counted() {
    for prompt in [
        "[]",
        // Cut by its sender, and written as Python shows it.
        r#"[{"role": "user", "content": "hello wor"#,
        "[{'role': 'user', 'content': 'hello world'}]",
        r#"{"question": "why?"}"#,
        r#"["why?"]"#,
        r#"[{"role": "user", "content": 5}]"#,
        r#"[{"role": "user"}]"#,
        r#"[{"role": "tool", "content": "21 degrees", "tool_call_id": "c1"}]"#,
        r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]"#,
        r#"[{"role": "assistant", "content": "", "tool_calls": [{"id": "c1"}]}, {"role": "user", "content": "so?"}]"#,
        r#"{"messages": [{"role": "user", "content": "why?"}], "tools": [{"type": "function"}]}"#,
        r#"{"messages": [{"role": "user", "content": "why?"}], "system": "be brief"}"#,
    ] {
        assert_eq!(O200kBase.count_prompt(prompt), Count::Unknown, "{prompt}");
    }
    for answer in [
        r#"{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]}"#,
        r#"{"answer": 5}"#,
        r#"[{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]"#,
    ] {
        assert_eq!(O200kBase.count_answer(answer), Count::Unknown, "{answer}");
    }
    let long = "a ".repeat(TEXT_BYTES_MAX / 2 + 1);
    assert_eq!(O200kBase.count_prompt(&long), Count::Unknown);
}

#[test]
fn an_answer_is_its_text() {
    let message = r#"{"role": "assistant", "content": "hello world", "tool_calls": null}"#;
    for answer in ["hello world", message, &format!("[{message}]")] {
        assert_eq!(O200kBase.count_answer(answer), Count::Tokens(2), "{answer}");
    }
}

#[test]
fn texts_to_embed_are_counted_together() {
    assert_eq!(Cl100kBase.count_embedded("hello world"), Count::Tokens(2));
    assert_eq!(Cl100kBase.count_embedded(r#"["hello world", "hello world"]"#), Count::Tokens(4));
    assert_eq!(Cl100kBase.count_embedded(r#"[1, 2]"#), Count::Unknown);
}
