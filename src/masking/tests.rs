use super::*;
use crate::model::{Event, EventBatch, EventKind, Observation, Order, Score, TraceFacts};

fn built_in(action: MaskingAction) -> Vec<MaskingRule> {
    BUILT_IN.map(|name| MaskingRule { name: name.to_owned(), find: Find::BuiltIn, action }).into()
}

fn path(name: &str, path: &str, action: MaskingAction) -> MaskingRule {
    MaskingRule { name: name.to_owned(), find: Find::Path(path.to_owned()), action }
}

fn pattern(name: &str, pattern: &str, action: MaskingAction) -> MaskingRule {
    MaskingRule { name: name.to_owned(), find: Find::Pattern(pattern.to_owned()), action }
}

fn mask(rules: &[MaskingRule]) -> Mask {
    check(rules).unwrap();
    Mask::new(rules, "a secret").unwrap()
}

/// An observation with this input, masked.
fn masked(mask: &Mask, input: &str) -> (String, Vec<String>) {
    let said = Observation { input: Some(input.to_owned()), ..Default::default() };
    let said = apply(mask, said);
    (said.input.unwrap_or_default(), said.sensitive_kinds)
}

fn apply(mask: &Mask, said: Observation) -> Observation {
    let event = Event { order: Order::default(), kind: Some(EventKind::Observation(said)) };
    let mut batch = EventBatch { events: vec![event], ..Default::default() };
    mask.apply(&mut batch);
    match batch.events.remove(0).kind {
        Some(EventKind::Observation(said)) => said,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_is_found_where_it_is_and_not_where_it_is_not() {
    let mask = mask(&built_in(MaskingAction::Redact));
    let found = [
        ("write to ana.souza+x@mail.example.com.br, please", "write to [email], please"),
        ("João: joão@exemplo.com", "João: [email]"),
        ("call +55 11 98765-4321 now", "call [phone] now"),
        ("(11) 98765-4321 or (415) 555-2671", "[phone] or [phone]"),
        ("+14155552671;+44 20 7946 0958", "[phone];[phone]"),
        ("zap 5511987654321", "zap [phone]"),
        ("CPF 529.982.247-25.", "CPF [cpf]."),
        ("52998224725", "[cpf]"),
        ("card 4111 1111 1111 1111 exp 12/27", "card [credit_card] exp 12/27"),
        ("12 4111-1111-1111-1111 123", "12 [credit_card] 123"),
        ("5555555555554444,378282246310005", "[credit_card],[credit_card]"),
        ("AKIAIOSFODNN7EXAMPLE", "[api_key]"),
        ("Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345", "Authorization: [api_key]"),
    ];
    for (text, wanted) in found {
        assert_eq!(masked(&mask, text).0, wanted, "{text}");
    }
    for begins in ["sk-ant-api03-", "sk-proj-", "sk_live_", "ghp_", "hf_", "xoxb-"] {
        let key = format!("key {begins}{}", "aB3d".repeat(10));
        assert_eq!(masked(&mask, &key).0, "key [api_key]", "{key}");
    }
    let not_found = [
        "529.982.247-24",
        "111.111.111-11",
        "4111 1111 1111 1112",
        "550e8400-e29b-41d4-a716-446655440000",
        "1764279961000 ms, 1764279961000000000 ns",
        "0.52998224725",
        "x52998224725",
        "v1.2.3-20241022",
        "claude-3-5-sonnet-20241022",
        "a@b",
        "task-0123456789abcdef0123456789",
        "2026-11-27 22:05:00.123456",
        "call_4111111111111111abc",
    ];
    for text in not_found {
        assert_eq!(masked(&mask, text), (text.to_owned(), vec![]), "{text}");
    }
}

#[test]
fn actions_do_what_they_say_and_the_row_says_what_was_found() {
    let text = "ana@example.com, Ana@Example.com and bob@example.com";
    let of = |action| masked(&mask(&built_in(action)), text);
    let kinds = vec!["email".to_owned()];
    assert_eq!(of(MaskingAction::Drop), (",  and ".to_owned(), kinds.clone()));
    assert_eq!(of(MaskingAction::Redact), ("[email], [email] and [email]".to_owned(), kinds.clone()));
    assert_eq!(of(MaskingAction::Detect), (text.to_owned(), kinds.clone()));
    let (hashed, found) = of(MaskingAction::Hash);
    assert_eq!(found, kinds);
    let words: Vec<&str> = hashed.split([',', ' ']).filter(|word| word.starts_with("email_")).collect();
    assert!(words.len() == 3 && words[0] == words[1] && words[0] != words[2] && words[0].len() == 38, "{hashed}");
    let other = Mask::new(&built_in(MaskingAction::Hash), "the secret of another tenant").unwrap();
    assert_ne!(masked(&other, "ana@example.com").0, words[0], "nobody else's hashes are the same");
    assert_eq!(masked(&mask(&built_in(MaskingAction::Hash)), &hashed).0, hashed, "once is enough");
}

#[test]
fn json_stays_json_and_is_otherwise_left_as_it_was() {
    let mask = mask(&built_in(MaskingAction::Redact));
    let cases = [
        (r#"{ "cpf" : 52998224725, "n": 1.50 }"#, r#"{ "cpf" : "[cpf]", "n": 1.50 }"#),
        (r#"["ana\u0040example.com", "a\nb", 1e400]"#, r#"["[email]", "a\nb", 1e400]"#),
        (r#"{"ana@example.com":{"b":[]},"b":{}}"#, r#"{"[email]":{"b":[]},"b":{}}"#),
        (
            r#"{"arguments":"{\"to\":\"ana@example.com\",\"id\":52998224725}"}"#,
            r#"{"arguments":"{\"to\":\"[email]\",\"id\":\"[cpf]\"}"}"#,
        ),
        (r#"{"cut": "ana@example.com"#, r#"{"cut": "[email]"#),
        (r#""ana@example.com""#, r#""[email]""#),
    ];
    for (text, wanted) in cases {
        assert_eq!(masked(&mask, text).0, wanted, "{text}");
    }
    let lone = r#"{"a":"\ud800 ana@example.com","b":"ana@example.com"}"#;
    assert!(!masked(&mask, lone).0.contains("@example"), "{}", masked(&mask, lone).0);
    let deep = format!("{}\"ana@example.com\"{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(masked(&mask, &deep).0.contains("\"[email]\""), "deeper than any parser goes");
}

#[test]
fn paths_lead_through_lists_dotted_keys_and_json_in_json() {
    use MaskingAction::{Detect, Drop, Hash, Redact};
    let mask = mask(&[
        path("document", "metadata.customer.document", Drop),
        path("secret", "metadata.plan", Redact),
        path("content", "input.messages.content", Redact),
        path("second", "input.items.1", Drop),
        path("any", "input.by_id.*.name", Hash),
        path("home", "attributes.user.home", Redact),
        path("person", "user_id", Hash),
        path("answer", "output", Detect),
    ]);
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let said = Observation {
        input: Some(
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"x","content":[{"text":"y"}]}],"items":[1,2,3],"by_id":{"7":{"name":"n"}}}"#
                .into(),
        ),
        output: Some("an answer".into()),
        user_id: Some("ana".into()),
        metadata: map(&[("customer", r#"{"document":{"no":1},"city":"x"}"#), ("customer.document", "2"), ("plan", "b")]),
        attributes: map(&[("user.home", "Rua A"), ("user.homes", "kept")]),
        ..Default::default()
    };
    let said = apply(&mask, said);
    let input: serde_json::Value = serde_json::from_str(said.input.as_deref().unwrap()).unwrap();
    assert_eq!(input["messages"][0]["content"], "[content]");
    assert_eq!(input["messages"][1]["content"], "[content]");
    assert_eq!(input["messages"][1]["role"], "x");
    assert_eq!(input["items"], serde_json::json!([1, null, 3]));
    assert!(input["by_id"]["7"]["name"].as_str().unwrap().starts_with("any_"));
    assert_eq!(said.output.as_deref(), Some("an answer"));
    assert!(said.user_id.unwrap().starts_with("person_"));
    assert_eq!(said.metadata, map(&[("customer", r#"{"document":null,"city":"x"}"#), ("plan", "[secret]")]));
    assert_eq!(said.attributes, map(&[("user.home", "[home]"), ("user.homes", "kept")]));
    let kinds = ["answer", "any", "content", "document", "home", "person", "second", "secret"];
    assert_eq!(said.sensitive_kinds, kinds);
}

#[test]
fn traces_and_scores_are_masked_in_all_their_texts() {
    let mask = mask(&built_in(MaskingAction::Redact));
    let mail = || Some("ana@example.com".to_owned());
    let map = || [("ana@example.com".to_owned(), "ana@example.com".to_owned())].into();
    let facts = TraceFacts {
        trace_id: "ana@example.com".into(),
        name: mail(),
        root_name: mail(),
        user_id: mail(),
        session_id: mail(),
        tags: vec!["ana@example.com".into()],
        metadata: map(),
        input: mail(),
        output: mail(),
        attributes: map(),
        ..Default::default()
    };
    let score = Score {
        id: "ana@example.com".into(),
        session_id: mail(),
        string_value: mail(),
        comment: mail(),
        metadata: map(),
        ..Default::default()
    };
    let kinds = [EventKind::Trace(facts), EventKind::Score(score)];
    let events = kinds.map(|kind| Event { order: Order::default(), kind: Some(kind) }).into();
    let mut batch = EventBatch { events, ..Default::default() };
    mask.apply(&mut batch);
    let text = format!("{:?}", batch.events);
    assert_eq!(text.matches("ana@example.com").count(), 2, "only ids are left alone: {text}");
    assert_eq!(text.matches("sensitive_kinds: [\"email\"]").count(), 2, "{text}");
}

#[test]
fn overlapping_finds_leave_nothing_of_either() {
    let rules = [pattern("one", "abc", MaskingAction::Redact), pattern("two", "bcd+", MaskingAction::Redact)];
    assert_eq!(masked(&mask(&rules), "xabcddy").0, "x[one]y");
    assert_eq!(masked(&mask(&rules), "xabcddy").1, ["one", "two"]);
}

#[test]
fn rules_that_cannot_be_run_are_refused_with_a_reason() {
    use MaskingAction::Redact;
    let cases = [
        (pattern("p", "(", Redact), "rule p"),
        (pattern("p", "x*", Redact), "nothing at all"),
        (pattern("p", &"x".repeat(1_001), Redact), "1000 bytes"),
        (pattern("p", r"(\w{100}){100}", Redact), "compiled"),
        (pattern("email", "x", Redact), "another name"),
        (pattern("Not a word", "x", Redact), "small letters"),
        (path("p", "inputs.x", Redact), "begins with no field"),
        (path("p", "user_id.x", Redact), "nothing stands below"),
        (path("p", "input..x", Redact), "empty part"),
        (MaskingRule { name: "passport".into(), find: Find::BuiltIn, action: Redact }, "brings along email"),
    ];
    for (rule, why) in cases {
        let refused = check(std::slice::from_ref(&rule)).unwrap_err();
        assert!(refused.contains(why), "{rule}: {refused}");
    }
    let twice = [pattern("p", "x", Redact), pattern("p", "y", Redact)];
    assert!(check(&twice).unwrap_err().contains("two masking rules"));
    let many: Vec<MaskingRule> = (0..51).map(|n| pattern(&format!("p{n}"), "x", Redact)).collect();
    assert!(check(&many).unwrap_err().contains("50"));
}

#[test]
fn no_input_makes_it_panic() {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    let mut rules = built_in(MaskingAction::Redact);
    rules.push(path("p", "input.a.*", MaskingAction::Drop));
    let mask = mask(&rules);
    let mut random = SmallRng::seed_from_u64(7);
    let parts = ["{", "}", "[", "]", "\"a\":", "\"", "\\", "é", "@x.com", "+55 11", "4111", " ", ",", "1", "\\ud800"];
    for _ in 0..20_000 {
        let count = random.random_range(0..24);
        let text: String = (0..count).map(|_| parts[random.random_range(0..parts.len())]).collect();
        let (out, _) = masked(&mask, &text);
        let valid = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        assert!(!(valid(&text) && text.trim_start().starts_with(['{', '[', '"'])) || valid(&out), "{text} -> {out}");
    }
}

#[test]
fn names_of_tools_and_agents_hide_nothing() {
    let name = || "mail_ana@example.com".to_owned();
    let said = Observation {
        tools_offered: vec![name(), "search".into(), "mail_bob@example.com".into()],
        tools_called: vec![name()],
        tool_name: Some(name()),
        agent_name: Some(name()),
        ..Default::default()
    };
    let said = apply(&mask(&built_in(MaskingAction::Redact)), said);
    let masked = "[email]";
    assert_eq!((said.tools_offered, said.tools_called), (vec![masked.into(), "search".into()], vec![masked.into()]));
    assert_eq!([said.tool_name, said.agent_name].map(Option::unwrap), [masked; 2]);
    assert_eq!(said.sensitive_kinds, ["email"]);
}
