use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::memory::InMemory;

use super::*;

/// Answers one fault for the calls it is asked about, none for the rest.
#[derive(Debug)]
struct Scripted(fn(usize, Call<'_>) -> Fault, AtomicUsize);

impl Scripted {
    fn new(script: fn(usize, Call<'_>) -> Fault) -> Arc<Self> {
        Arc::new(Self(script, AtomicUsize::new(0)))
    }
}

impl Faults for Scripted {
    fn on(&self, call: Call<'_>) -> Fault {
        (self.0)(self.1.fetch_add(1, Ordering::SeqCst), call)
    }
}

fn memory() -> Location {
    Location::Memory(Arc::new(InMemory::new()))
}

#[tokio::test]
async fn a_folder_creates_once_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Location::Folder(folder.path().into())).await.unwrap();
    let path = Path::from("a/b/c");
    assert_eq!(store.create(&path, Bytes::from("one")).await.unwrap(), Created::Ours);
    assert_eq!(store.create(&path, Bytes::from("two")).await.unwrap(), Created::Theirs(Bytes::from("one")));
    assert_eq!(store.get(&path).await.unwrap().unwrap(), "one");
    assert_eq!(store.get(&Path::from("a/none")).await.unwrap(), None);
    assert!(std::fs::read_dir(folder.path().join(".staging")).unwrap().next().is_none(), "nothing is left behind");
}

#[tokio::test]
async fn a_lost_reply_is_recognised_as_our_own_success() {
    let faults = Scripted::new(|_, call| match call.path.as_ref() {
        "key" if call.operation == Operation::Put => Fault::LoseReply,
        _ => Fault::None,
    });
    let store = Store::with_faults(memory(), faults).await.unwrap();
    assert_eq!(store.create(&Path::from("key"), Bytes::from("mine")).await.unwrap(), Created::Ours);
    assert_eq!(
        store.create(&Path::from("key"), Bytes::from("other")).await.unwrap(),
        Created::Theirs(Bytes::from("mine"))
    );
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_refused_by_name() {
    let refused = Store::with_faults(memory(), Scripted::new(|_, _| Fault::IgnoreCondition)).await.unwrap_err();
    assert!(refused.to_string().contains("created twice"), "{refused}");
}

#[tokio::test]
async fn a_store_that_checks_and_then_writes_is_refused_by_name() {
    let refused = Store::with_faults(memory(), Scripted::new(|_, _| Fault::CheckThenWrite)).await.unwrap_err();
    assert!(refused.to_string().contains("racing creates"), "{refused}");
}

#[tokio::test]
async fn an_absent_store_is_an_error_that_may_pass() {
    let faults = Scripted::new(|_, call| match call.path.as_ref().starts_with("system/probe") {
        true => Fault::None,
        false => Fault::Fail,
    });
    let store = Store::with_faults(memory(), faults).await.unwrap();
    let error = store.create(&Path::from("key"), Bytes::from("x")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn locations_parse_and_unknown_schemes_are_refused() {
    assert_eq!("s3://b/p/q/".parse::<Location>().unwrap().to_string(), "s3://b/p/q");
    assert_eq!("./data".parse::<Location>().unwrap().to_string(), "./data");
    assert!("gs://b".parse::<Location>().unwrap_err().to_string().contains("gs"));
    assert!("s3://".parse::<Location>().is_err());
}
