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

fn pieces(bytes: usize) -> Vec<Bytes> {
    const PIECE: usize = 3 << 20;
    let piece = |at: usize| Bytes::from(vec![at as u8; PIECE.min(bytes - at * PIECE)]);
    (0..bytes.div_ceil(PIECE)).map(piece).collect()
}

async fn upload(store: &Store, path: &Path, pieces: &[Bytes]) -> Result<u64> {
    let mut upload = store.upload(path.clone());
    for piece in pieces {
        upload.push(piece.clone()).await?;
    }
    upload.finish().await
}

#[tokio::test]
async fn an_upload_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    for location in [memory(), Location::Folder(folder.path().into())] {
        let store = Store::open(location).await.unwrap();
        for bytes in [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 5, 5 * PART_BYTES] {
            let (path, pieces) = (Path::from(format!("up/{bytes}")), pieces(bytes));
            let before = store.counts().put;
            assert_eq!(upload(&store, &path, &pieces).await.unwrap(), bytes as u64);
            assert_eq!(store.get(&path).await.unwrap().unwrap(), pieces.concat(), "{bytes} bytes");
            assert!(bytes >= PART_BYTES || store.counts().put - before == 1, "what is small costs one request");
        }
        let mut dropped = store.upload(Path::from("up/dropped"));
        for piece in pieces(3 * PART_BYTES) {
            dropped.push(piece).await.unwrap();
        }
        drop(dropped);
        assert_eq!(store.get(&Path::from("up/dropped")).await.unwrap(), None);
    }
    // What is under way when an upload is dropped ends by itself.
    for _ in 0..100 {
        if std::fs::read_dir(folder.path().join(".staging")).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("staged files are left behind");
}

#[tokio::test]
async fn an_upload_that_fails_says_so() {
    for fails_at in 0..5 {
        let store = memory();
        let faults = Arc::new(FailsAt(fails_at, AtomicUsize::new(0)));
        let store = Store::with_faults(store, faults).await.unwrap();
        let path = Path::from("up/a");
        let uploaded = upload(&store, &path, &pieces(3 * PART_BYTES)).await;
        assert_eq!(uploaded.unwrap_err().kind(), Kind::Unavailable, "call {fails_at}");
        assert_eq!(store.get(&path).await.unwrap(), None);
    }
}

/// Fails the n-th put below `up`.
#[derive(Debug)]
struct FailsAt(usize, AtomicUsize);

impl Faults for FailsAt {
    fn on(&self, call: Call<'_>) -> Fault {
        let is_upload = call.operation == Operation::Put && call.path.as_ref().starts_with("up/");
        match is_upload && self.1.fetch_add(1, Ordering::SeqCst) == self.0 {
            true => Fault::Fail,
            false => Fault::None,
        }
    }
}
