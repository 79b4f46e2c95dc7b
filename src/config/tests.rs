use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    serve: ServeArgs,
}

const MACHINE: ByteSize = ByteSize::gib(16);

fn args(line: &[&str]) -> ServeArgs {
    CommandLine::try_parse_from(std::iter::once(&"tracelake").chain(line)).unwrap().serve
}

fn settings(line: &[&str]) -> Result<Settings, ConfigError> {
    args(line).settings_on(Some(MACHINE), |_| None)
}

fn with_file(text: &str, line: &[&str]) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracelake.toml");
    fs::write(&path, text).unwrap();
    settings(&[&["--config", path.to_str().unwrap()], line].concat())
}

/// `Settings` has no `Debug`: it holds a secret.
#[track_caller]
fn refused(settings: Result<Settings, ConfigError>) -> String {
    match settings {
        Ok(settings) => panic!("accepted: {settings}"),
        Err(error) => error.to_string(),
    }
}

fn in_environment(pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let find = |name: &str| pairs.iter().find(|(has, _)| *has == name).map(|(_, value)| (*value).to_owned());
    args(&[]).settings_on(Some(MACHINE), find)
}

#[test]
fn defaults_listen_on_this_machine_and_fit_into_it() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.grpc_addr.to_string(), "127.0.0.1:4317");
    assert_eq!(settings.http_addr.to_string(), "127.0.0.1:4318");
    assert_eq!(settings.writer.as_str(), "main");
    assert!(settings.first_tenant.is_none());
    for machine in [ByteSize::mib(512), ByteSize::gib(2), ByteSize::gib(256)] {
        let settings = args(&[]).settings_on(Some(machine), |_| None).unwrap();
        assert!(settings.memory_max().bytes() <= machine.bytes() * 6 / 10, "{machine}: {settings}");
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "data = \"s3://bucket/prefix\"\nwriter = \"file\"\nquery_memory_max = \"1GiB\"\n";
    let settings = with_file(file, &["--writer", "flag", "--query-time-max-s", "7"]).unwrap();
    assert_eq!(settings.writer.as_str(), "flag");
    assert_eq!(settings.data.to_string(), "s3://bucket/prefix");
    assert_eq!(settings.query_memory_max, ByteSize::gib(1));
    assert_eq!(settings.query_time_max, Duration::from_secs(7));
}

#[test]
fn every_setting_has_a_flag_and_an_environment_name_that_match() {
    use clap::CommandFactory;
    let command = CommandLine::command();
    let arguments: Vec<_> = command.get_arguments().collect();
    assert!(arguments.len() >= 12);
    for argument in arguments {
        let name = argument.get_id().as_str();
        assert_eq!(argument.get_long(), Some(name.replace('_', "-").as_str()));
        let variable = argument.get_env().unwrap().to_str().unwrap();
        assert_eq!(variable, format!("TRACELAKE_{}", name.to_uppercase()));
        assert!(argument.get_help().is_some(), "{name} has no help");
    }
}

#[test]
fn mistakes_are_refused_and_named() {
    let unknown = refused(with_file("writter = \"x\"", &[]));
    assert!(unknown.contains("writter") && unknown.contains("tracelake.toml"), "{unknown}");
    for (file, says) in [
        ("query_memory_max = \"much\"", "much"),
        ("writer = \"No Good\"", "writer id"),
        ("cors_origin = \"https://app.example,*\"", "no web origin"),
        ("cors_origin = \"https://app.example/\"", "no web origin"),
        ("cors_origin = \"null\"", "no web origin"),
        ("grpc_addr = \"here\"", "grpc_addr"),
        ("data = \"gs://x\"", "gs"),
        ("query_rows_max = 0", "query_rows_max is 0"),
    ] {
        let error = refused(with_file(file, &[]));
        assert!(error.contains(says), "{file}: {error}");
    }
    assert!(refused(settings(&["--config", "/no/such/file"])).contains("/no/such/file"));
}

#[test]
fn limits_that_do_not_fit_the_machine_are_refused_with_their_names_and_sum() {
    let error = refused(settings(&["--query-memory-max", "15GiB"]));
    for says in ["query_memory_max 15GiB", "ingest_memory_max 512MiB", "compact_memory_max 384MiB", "16.9GiB", "16GiB"]
    {
        assert!(error.contains(says), "{error}");
    }
    assert!(settings(&["--query-memory-max", "15GiB", "--cache-memory-max", "64MiB"]).is_ok());
    let unknown_machine = args(&["--query-memory-max", "15GiB"]).settings_on(None, |_| None);
    assert!(unknown_machine.is_ok(), "what is not known is not checked");
}

#[test]
fn the_first_tenant_comes_from_our_names_or_from_langfuses() {
    let first = |pairs| in_environment(pairs).map(|settings| settings.first_tenant);
    let key = Some(("pk".to_owned(), "sk".to_owned()));
    let ours = [
        ("TRACELAKE_INIT_TENANT", "acme"),
        ("TRACELAKE_INIT_PUBLIC_KEY", "pk"),
        ("TRACELAKE_INIT_SECRET_KEY", "sk"),
        ("LANGFUSE_INIT_PROJECT_ID", "Not Used"),
    ];
    let found = first(&ours).ok().flatten().unwrap();
    assert!(found.tenant.as_str() == "acme" && found.key == key);
    let langfuse = [
        ("LANGFUSE_INIT_PROJECT_ID", "my-project"),
        ("LANGFUSE_INIT_PROJECT_PUBLIC_KEY", "pk"),
        ("LANGFUSE_INIT_PROJECT_SECRET_KEY", "sk"),
        ("TRACELAKE_INIT_TENANT", ""),
    ];
    let found = first(&langfuse).ok().flatten().unwrap();
    assert!(found.tenant.as_str() == "my-project" && found.key == key);
    let found = first(&langfuse[1..]).ok().flatten().unwrap();
    assert_eq!(found.tenant.as_str(), "default");
    let error = refused(in_environment(&langfuse[..2]));
    assert!(error.contains("TRACELAKE_INIT_SECRET_KEY is not"), "{error}");
    assert!(
        refused(in_environment(&[("LANGFUSE_INIT_PROJECT_ID", "My Project")])).contains("LANGFUSE_INIT_PROJECT_ID")
    );
}

#[test]
fn what_is_logged_masks_the_secret() {
    let settings =
        in_environment(&[("TRACELAKE_INIT_PUBLIC_KEY", "pk-lf-1"), ("TRACELAKE_INIT_SECRET_KEY", "sk-lf-very-secret")]);
    let shown = settings.map(|settings| settings.to_string()).unwrap_or_default();
    assert!(shown.contains("init_public_key=pk-lf-1 init_secret_key=***"), "{shown}");
    assert!(!shown.contains("very-secret"));
}

#[test]
fn one_flush_time_goes_for_busy_and_quiet_tenants() {
    let ingest = |line: &[&str]| settings(line).unwrap().server().ingest;
    let (unset, set) = (ingest(&[]), ingest(&["--flush-after-s", "5"]));
    assert_eq!((unset.flush_after_s, unset.flush_quiet_after_s), (60, 900));
    assert_eq!((set.flush_after_s, set.flush_quiet_after_s), (5, 5));
    assert!(refused(settings(&["--flush-after-s", "0"])).starts_with("flush_after_s is 0"));
}

#[test]
fn files_outlast_the_longest_query_and_logs_a_day() {
    let upkeep = |line: &[&str]| settings(line).unwrap().server().upkeep;
    let unset = upkeep(&[]).unwrap();
    assert_eq!((unset.linger_s, unset.log_kept_s, unset.retention_days), (7200, 86_400, None));
    let set =
        upkeep(&["--retention-days", "90", "--removed-files-kept-s", "900", "--query-time-max-s", "300"]).unwrap();
    assert_eq!((set.linger_s, set.retention_days), (900, Some(90)));
    assert!(upkeep(&["--upkeep", "false"]).is_none());
    let error = refused(settings(&["--query-time-max-s", "7000"]));
    assert!(error.contains("removed_files_kept_s is 7200") && error.contains("7600 at least"), "{error}");
    assert!(refused(settings(&["--delta-log-kept-s", "3600"])).starts_with("delta_log_kept_s is below 86400"));
    assert!(refused(settings(&["--retention-days", "0"])).starts_with("retention_days is 0"));
}

#[test]
fn files_are_merged_unless_told_otherwise() {
    let compact = settings(&[]).unwrap().compact.unwrap();
    assert_eq!((compact.workers, compact.memory_max), (1, ByteSize::mib(384)));
    assert!(settings(&["--compact", "false"]).unwrap().compact.is_none());
    assert!(settings(&["--compact=false"]).unwrap().compact.is_none());
    let given = settings(&["--compact-workers", "2", "--compact-memory-max", "1GiB"]).unwrap().compact.unwrap();
    assert_eq!((given.workers, given.memory_max), (2, ByteSize::gib(1)));
    let why = refused(settings(&["--compact-workers", "16"]));
    assert!(why.contains("16 workers leaves less than"), "{why}");
}
