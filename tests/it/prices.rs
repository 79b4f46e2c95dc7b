//! Prices from the outside: set by hand, by file and by clients; found in SQL; kept over a kill.

use std::path::Path;
use std::process::{Command, Output};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, sql, texts};
use crate::spans::{export, span};

/// A call that used a million input tokens and took a second.
fn call(model: &str, number: u64) -> Span {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..Default::default()
    };
    let tokens = KeyValue {
        key: "gen_ai.usage.input_tokens".to_owned(),
        value: Some(AnyValue { value: Some(Value::IntValue(1_000_000)) }),
        ..Default::default()
    };
    let attributes = vec![text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", model), tokens];
    let mut call = Span { attributes, ..span("call", number) };
    call.end_time_unix_nano = call.start_time_unix_nano + 1_000_000_000;
    call
}

fn run(arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_tracelake"))
        .arg("prices")
        .args(arguments)
        .env("TRACELAKE_PUBLIC_KEY", PUBLIC_KEY)
        .env("TRACELAKE_SECRET_KEY", SECRET_KEY)
        .env_remove("TRACELAKE_DATA")
        .output();
    command.unwrap()
}

#[track_caller]
fn said(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], why: &str) {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(why), "{arguments:?}: {error}");
}

async fn costs(server: &ServerProcess) -> Vec<String> {
    let statement = "SELECT concat_ws(' ', model, coalesce(total_cost, -1), coalesce(price_id, '-')) FROM observations
        ORDER BY start_time";
    texts(&sql(&server.connect().await, statement).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_set_by_hand_prices_what_comes_after_it_and_every_row_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(path(folder.path()));
    let connection = server.connect().await;
    let at = ["--server", server.grpc_addr.as_str()];
    let with = |arguments: &[&'static str]| [arguments, &at[..]].concat();
    connection.export(export(vec![call("acme-llm-v1", 0)])).await.unwrap();
    refused(&with(&["check", "acme-llm-v1"]), "acme-llm-v1 has no price");
    let set = said(&with(&["set", "acme-llm", "input=2", "duration_seconds=0.5", "--pattern", "acme-llm(-v\\d)?"]));
    assert!(set.contains("+own-1"), "{set}");
    connection.export(export(vec![call("acme-llm-v1", 1)])).await.unwrap();
    said(&with(&["set", "acme-llm", "input=3", "--pattern", "acme-llm(-v\\d)?"]));
    connection.export(export(vec![call("acme-llm-v1", 2)])).await.unwrap();
    let expected = [
        "acme-llm-v1 -1.000000000000 -".to_owned(),
        "acme-llm-v1 2.500000000000 own-1/acme-llm/start/standard".to_owned(),
        "acme-llm-v1 3.000000000000 own-2/acme-llm/start/standard".to_owned(),
    ];
    assert_eq!(costs(&server).await, expected);

    let checked = said(&with(&["check", "ACME-LLM-v2", "input=1500000", "output=5"]));
    assert!(checked.contains("is acme-llm (own) by the pattern acme-llm(-v\\d)?"), "{checked}");
    assert!(checked.contains("price own-2/acme-llm/start/standard: input 3/M") && checked.contains("4.5"), "{checked}");
    let shipped = said(&with(&["check", "openai/gpt-4o-mini-2024-07-18", "input=120", "cached_input=100"]));
    assert!(shipped.contains("is gpt-4o-mini (shipped)") && shipped.contains("0.0000105"), "{shipped}");
    let own = said(&with(&["list", "--own"]));
    assert_eq!(own.lines().count(), 2, "{own}");
    let table = "SELECT concat_ws(' ', model_id, kind, usd, per) FROM prices WHERE is_own
        UNION ALL SELECT concat_ws(' ', model_id, kind, usd, per) FROM prices WHERE NOT is_own AND kind = 'input'
            AND model_id = 'gpt-4o-mini' AND tier = 'standard'";
    let mut table = texts(&sql(&connection, table).await.unwrap());
    table.sort();
    assert_eq!(table, ["acme-llm input 3.000000000000 1000000", "gpt-4o-mini input 0.150000000000 1000000"]);

    assert!(server.get("/metrics").await.contains("# TYPE tracelake_unpriced_rows_total counter"));
    server.kill();
    let server = ServerProcess::start(path(folder.path()));
    assert_eq!(costs(&server).await, expected, "priced again from the log by the same books");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_other_people_are_imported_into_a_store_and_reach_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path()).to_owned();
    drop(ServerProcess::start(&data));
    let lists = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = lists.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let litellm = file(
        "prices.json",
        r#"{"sample_spec": {"input_cost_per_token": 0}, "free-form": {"mode": "chat"},
            "lite-a": {"litellm_provider": "acme", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07,
                "cache_read_input_token_cost": 7.5e-08, "input_cost_per_token_above_200k_tokens": 3e-07,
                "input_cost_per_token_batches": 7.5e-08, "mode": "chat"}}"#,
    );
    let csv = file(
        "prices.csv",
        "model,kind,usd,valid_from,tier,service_tier\nc,input,1,,,\nc,input,0.5,,batch,batch\nc,requests,0.01,,,\nc,input,2,2026-06-01,,\n",
    );
    let toml = file(
        "prices.toml",
        "[[models]]\nid = \"t\"\npattern = \"t-.*\"\n[[models.prices]]\n[[models.prices.tiers]]\nname = \"standard\"\nusd_per_unit = { duration_seconds = \"0.0012\" }\n",
    );
    let at = ["--data", data.as_str(), "--tenant", "acme"];
    let with = |arguments: &[&str]| said(&[arguments, &at[..]].concat());
    let imported = with(&["import", &litellm]);
    assert!(
        imported.contains("1 models put") && imported.contains("no price that is known here: free-form"),
        "{imported}"
    );
    with(&["import", &csv]);
    with(&["import", &toml]);
    let server = ServerProcess::start(&data);
    let at = ["--server", server.grpc_addr.as_str()];
    let check = |arguments: &[&str]| said(&[&["check"], arguments, &at[..]].concat());
    for (arguments, expected) in [
        (vec!["lite-a", "input=1000000", "cached_input=200000", "output=0"], "lite-a/start/above-200k"),
        (vec!["lite-a", "input=100000", "--service-tier", "batch"], "0.0075"),
        (vec!["c", "input=1000000", "--at", "2026-05-31"], "1.01"),
        (vec!["c", "input=1000000", "--at", "2026-05-31", "--service-tier", "batch"], "0.5"),
        (vec!["c", "input=1000000", "--at", "2026-06-01"], "2"),
        (vec!["t-70b", "--seconds", "10"], "0.012"),
    ] {
        let checked = check(&arguments);
        assert!(checked.contains(expected), "{arguments:?}: {checked}");
    }
    said(&[&["remove", "c"], &at[..]].concat());
    refused(&[&["remove", "c"], &at[..]].concat(), "no model c");
    let broken = file("broken.csv", "model,kind,usd\nx,inputs,1\n");
    refused(&[&["import", broken.as_str()], &at[..]].concat(), "\"inputs\" is not a kind of usage");
    refused(&["import", &broken, "--shipped"], "cannot be changed");
    assert!(said(&["list", "gpt-4o-mini", "--shipped"]).contains("input 0.15/M"));
    assert!(Path::new(&data).join("system/prices/acme").exists());
}
