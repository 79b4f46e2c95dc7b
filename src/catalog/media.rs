//! Media of tenants: images, sounds and documents that clients take out of what they trace, by their content.
//!
//! A medium is named by the hash of its bytes, so that the same bytes are stored once, and stands with one mention for
//! every observation or trace that has it: without a mention there is no medium, and with the last one the bytes go.
//! Nobody lists on the way in; who reads a medium, or the table of them, lists.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::recent::Recent;
use super::system::{Result, SystemError, SystemObjects};
use crate::base::{Day, TenantId, TimestampUs};
use crate::format::index::key_hash;
use crate::model::{MEDIA_ID_LETTERS, media_id};
use crate::store::{self, MediaObject, ObjectMeta, Store};

const SECRETS: &str = "media-secret";
const SECRET: &str = "first";
const TYPE_BYTES_MAX: usize = 200;
const HASH_BYTES: usize = 32;
/// Mentions kept in mind.
const MENTIONED_MAX: usize = 10_000;
/// Bytes whose upload may still be under way, or whose next mention, are left alone this long.
const UNMENTIONED_KEPT_US: i64 = 86_400_000_000;

/// The media of a store's tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Media(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    objects: SystemObjects,
    secret: OnceCell<Secret>,
    /// Mentions that were made a moment ago, of bytes that are there: agents send their pictures again with every step.
    mentioned: Recent<()>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Secret {
    secret: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is known of bytes before they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaKind {
    /// 22 letters of URL-safe base64.
    pub id: String,
    /// A media type without parameters, in small letters.
    pub content_type: String,
}

/// A medium that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    pub kind: MediaKind,
    pub bytes: u64,
    pub uploaded_us: TimestampUs,
    /// Hashes of the traces that mention it.
    pub traces: BTreeSet<u64>,
}

/// Who mentions it, for whoever reads the objects by hand.
#[derive(Debug, Serialize)]
struct Mention<'a> {
    trace_id: &'a str,
    observation_id: Option<&'a str>,
    field: &'a str,
}

/// What became of bytes that were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// The same bytes stood there before.
    StoredAgain,
    /// No trace mentions them (any more): they are not kept.
    Unmentioned,
}

/// What a link lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaAction {
    Upload,
    Download,
}

impl MediaKind {
    /// `sha256`: of the bytes. Refuses what is no media type, with a sentence.
    pub fn new(sha256: &[u8], content_type: &str) -> Result<Self> {
        let invalid = |why: String| SystemError::Invalid(why);
        if sha256.len() != HASH_BYTES {
            return Err(invalid("sha256Hash is not the base64 of 32 bytes".to_owned()));
        }
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let legal = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_".contains(&byte))
        };
        match content_type.split_once('/') {
            // The name of its object has the first `_` for the slash.
            Some((kind, of))
                if legal(kind) && !kind.contains('_') && legal(of) && content_type.len() <= TYPE_BYTES_MAX => {}
            _ => {
                let shown: String = content_type.chars().take(80).collect();
                return Err(invalid(format!("contentType {shown:?} is not a media type")));
            }
        }
        Ok(Self { id: media_id(sha256), content_type })
    }

    /// Whether these are the bytes.
    pub fn is_of(&self, body: &[u8]) -> bool {
        media_id(&Sha256::digest(body)) == self.id
    }
}

impl Media {
    pub fn new(store: Store, objects: SystemObjects) -> Self {
        Self(Arc::new(Inner { store, objects, secret: OnceCell::new(), mentioned: Recent::new(MENTIONED_MAX) }))
    }

    /// Writes down that a trace mentions a medium, durable on return. True: its bytes are there.
    pub async fn mention(
        &self,
        tenant: &TenantId,
        kind: &MediaKind,
        trace_id: &str,
        observation_id: Option<&str>,
        field: &str,
    ) -> Result<bool> {
        let observation = observation_id.map_or(0, |id| key_hash(&[trace_id, id]));
        let path = store::media_mention(tenant, &kind.id, key_hash(&[trace_id]), observation);
        let now_us = self.0.objects.now_us();
        if self.0.mentioned.get(path.as_ref(), now_us).is_some() {
            return Ok(true);
        }
        let body = serde_json::to_vec(&Mention { trace_id, observation_id, field }).expect("texts become JSON");
        // The mention first: whoever lets go of the bytes looks for mentions after it.
        self.0.store.put(&path, Bytes::from(body)).await?;
        let content = store::media_content(tenant, &kind.id, &kind.content_type);
        let is_there = self.0.store.size(&content).await?.is_some();
        if is_there {
            self.0.mentioned.put(path.as_ref(), now_us, ());
        }
        Ok(is_there)
    }

    /// Stores bytes that are `kind`'s, durable on return.
    pub async fn put(&self, tenant: &TenantId, kind: &MediaKind, body: Bytes) -> Result<Put> {
        let listed = self.0.store.list(&store::media(tenant, Some(&kind.id)), None).await?;
        let known = media_of(tenant, &listed).into_values().next().unwrap_or_default();
        if known.mentions.is_empty() {
            return Ok(Put::Unmentioned);
        }
        // Also where they are there: somebody may be about to let go of them.
        self.store(tenant, kind, body).await?;
        Ok(if known.contents.is_empty() { Put::Stored } else { Put::StoredAgain })
    }

    /// Stores the bytes of a medium that was just mentioned, durable on return.
    pub async fn store(&self, tenant: &TenantId, kind: &MediaKind, body: Bytes) -> Result<()> {
        Ok(self.0.store.put(&store::media_content(tenant, &kind.id, &kind.content_type), body).await?)
    }

    /// A medium of this id that is there and mentioned. Lists its objects.
    pub async fn find(&self, tenant: &TenantId, id: &str) -> Result<Option<Medium>> {
        let is_id = id.len() == MEDIA_ID_LETTERS
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_id {
            return Ok(None);
        }
        let listed = self.0.store.list(&store::media(tenant, Some(id)), None).await?;
        Ok(media_of(tenant, &listed).into_values().find_map(Listed::whole))
    }

    pub async fn read(&self, tenant: &TenantId, kind: &MediaKind) -> Result<Option<Bytes>> {
        Ok(self.0.store.get(&store::media_content(tenant, &kind.id, &kind.content_type)).await?)
    }

    /// All that are there and mentioned, by id. One LIST.
    pub async fn of(&self, tenant: &TenantId) -> Result<Vec<Medium>> {
        let listed = self.0.store.list(&store::media(tenant, None), None).await?;
        Ok(media_of(tenant, &listed).into_values().filter_map(Listed::whole).collect())
    }

    /// Lets go of the mentions by these traces and observations, known by the hashes of their keys, and of what nobody else
    /// mentions. Returns how many objects went. One LIST. It goes on to its end when its caller goes away.
    pub async fn forget(&self, tenant: &TenantId, traces: HashSet<u64>, observations: HashSet<u64>) -> Result<u64> {
        if traces.is_empty() && observations.is_empty() {
            return Ok(0);
        }
        let is_gone =
            move |mention: &Mentioned| traces.contains(&mention.trace) || observations.contains(&mention.observation);
        self.let_go(tenant, is_gone, i64::MAX).await
    }

    /// Lets go of mentions made before `kept_from`, if there is such a day, of bytes that nobody mentions, and says how
    /// many objects went. One LIST.
    pub async fn retire(&self, tenant: &TenantId, kept_from: Option<Day>) -> Result<u64> {
        let is_over = move |mention: &Mentioned| kept_from.is_some_and(|day| Day::of_us(mention.made_us) < day);
        self.let_go(tenant, is_over, self.0.objects.now_us() - UNMENTIONED_KEPT_US).await
    }

    /// Bytes go with their last mention; those that were unmentioned before only if they are older than `before_us`.
    /// Whoever stops half-way may have taken bytes that somebody came to mention: nobody who asks can stop it.
    async fn let_go(
        &self,
        tenant: &TenantId,
        is_gone: impl Fn(&Mentioned) -> bool + Send + Sync + 'static,
        before_us: TimestampUs,
    ) -> Result<u64> {
        let (media, tenant) = (self.clone(), tenant.clone());
        let going = tokio::spawn(async move {
            let store = &media.0.store;
            let listed = store.list(&store::media(&tenant, None), None).await?;
            let mut gone = 0;
            for (id, found) in media_of(&tenant, &listed) {
                let over: Vec<&Mentioned> = found.mentions.iter().filter(|mention| is_gone(mention)).collect();
                for mention in &over {
                    let path = store::media_mention(&tenant, &id, mention.trace, mention.observation);
                    media.0.mentioned.forget(path.as_ref());
                    store.delete(&path).await?;
                    gone += 1;
                }
                let is_unmentioned = over.len() == found.mentions.len();
                for (content_type, meta) in &found.contents {
                    let is_old = !over.is_empty() || meta.last_modified.timestamp_micros() < before_us;
                    if is_unmentioned && is_old {
                        gone += u64::from(media.drop_content(&tenant, &id, content_type).await?);
                    }
                }
            }
            Ok(gone)
        });
        going.await.map_err(|_| SystemError::Invalid("media could not be let go of".to_owned()))?
    }

    /// False: somebody else came to mention it meanwhile, and was told that the bytes are there.
    async fn drop_content(&self, tenant: &TenantId, id: &str, content_type: &str) -> Result<bool> {
        let (store, content) = (&self.0.store, store::media_content(tenant, id, content_type));
        let mentions = store::media(tenant, Some(id)).join("of");
        if !store.list(&mentions, None).await?.is_empty() {
            return Ok(false);
        }
        let Some(body) = store.get(&content).await? else { return Ok(false) };
        store.delete(&content).await?;
        if store.list(&mentions, None).await?.is_empty() {
            return Ok(true);
        }
        store.put(&content, body).await?;
        Ok(false)
    }

    /// What proves to any node of this store that its holder may do `action` until then: 64 letters. The secret is made
    /// with the first of them, and stays for ever.
    pub async fn signature(
        &self,
        action: MediaAction,
        tenant: &TenantId,
        kind: &MediaKind,
        until_us: TimestampUs,
    ) -> Result<String> {
        let mac = self.mac(action, tenant, kind, until_us).await?;
        Ok(hex::encode(mac.finalize().into_bytes()))
    }

    /// In the time it takes to compare all of it, right or wrong.
    pub async fn is_signed(
        &self,
        signature: &str,
        action: MediaAction,
        tenant: &TenantId,
        kind: &MediaKind,
        until_us: TimestampUs,
    ) -> Result<bool> {
        let Ok(signature) = hex::decode(signature) else { return Ok(false) };
        let mac = self.mac(action, tenant, kind, until_us).await?;
        Ok(until_us > self.0.objects.now_us() && mac.verify_slice(&signature).is_ok())
    }

    async fn mac(
        &self,
        action: MediaAction,
        tenant: &TenantId,
        kind: &MediaKind,
        until_us: TimestampUs,
    ) -> Result<Hmac<Sha256>> {
        let secret = self.0.secret.get_or_try_init(|| async {
            if let Some(made) = self.0.objects.get::<Secret>(SECRETS, SECRET).await? {
                return Ok::<_, SystemError>(made);
            }
            let new = Secret { secret: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()) };
            Ok(self.0.objects.create(SECRETS, SECRET, new.clone()).await?.unwrap_or(new))
        });
        let secret = secret.await?.secret.as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        // No part can hold a line's end.
        mac.update(format!("{action:?}\n{tenant}\n{}\n{}\n{until_us}", kind.id, kind.content_type).as_bytes());
        Ok(mac)
    }
}

/// Who mentions a medium, by hashes, and since when.
#[derive(Debug)]
struct Mentioned {
    trace: u64,
    /// 0: the trace itself.
    observation: u64,
    made_us: TimestampUs,
}

/// What a list shows of one medium.
#[derive(Debug, Default)]
struct Listed {
    id: String,
    contents: Vec<(String, ObjectMeta)>,
    mentions: Vec<Mentioned>,
}

fn media_of(tenant: &TenantId, listed: &[ObjectMeta]) -> BTreeMap<String, Listed> {
    let mut media: BTreeMap<String, Listed> = BTreeMap::new();
    for meta in listed {
        let Some((id, object)) = store::media_object(tenant, &meta.location) else { continue };
        let found = media.entry(id.clone()).or_insert_with(|| Listed { id, ..Default::default() });
        match object {
            MediaObject::Content(content_type) => found.contents.push((content_type, meta.clone())),
            MediaObject::Mention(trace, observation) => {
                let made_us = meta.last_modified.timestamp_micros();
                found.mentions.push(Mentioned { trace, observation, made_us });
            }
        }
    }
    media
}

impl Listed {
    /// One that has its bytes and a mention. Said to be of several types it is of the last.
    fn whole(self) -> Option<Medium> {
        let (content_type, meta) = self.contents.into_iter().max_by_key(|(_, meta)| meta.last_modified)?;
        (!self.mentions.is_empty()).then(|| Medium {
            kind: MediaKind { id: self.id, content_type },
            bytes: meta.size,
            uploaded_us: meta.last_modified.timestamp_micros(),
            traces: self.mentions.iter().map(|mention| mention.trace).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::{Clock, ManualClock, SystemClock};
    use crate::store::Location;

    async fn media(location: &Location, clock: &ManualClock) -> Media {
        let store = Store::open(location.clone()).await.unwrap();
        Media::new(store.clone(), SystemObjects::new(store, Arc::new(clock.clone())))
    }

    fn kind(body: &[u8]) -> MediaKind {
        MediaKind::new(&Sha256::digest(body), "image/png").unwrap()
    }

    fn hashes<H: FromIterator<u64>>(traces: &[&str]) -> H {
        traces.iter().map(|trace| key_hash(&[trace])).collect()
    }

    #[tokio::test]
    async fn bytes_are_there_once_and_go_with_their_last_mention() {
        let location = Location::Memory(Arc::new(InMemory::new()));
        let media = media(&location, &ManualClock::at(SystemClock.now_us())).await;
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "acme-2".parse().unwrap());
        let body = Bytes::from_static(b"a picture");
        let png = kind(&body);
        assert_eq!(media.put(&acme, &png, body.clone()).await.unwrap(), Put::Unmentioned);
        assert!(!media.mention(&acme, &png, "t1", Some("o"), "input").await.unwrap());
        assert_eq!(media.find(&acme, &png.id).await.unwrap(), None, "it was not uploaded");
        assert_eq!(media.put(&acme, &png, body.clone()).await.unwrap(), Put::Stored);
        assert!(media.mention(&acme, &png, "t2", None, "output").await.unwrap(), "it is there");
        assert!(!media.mention(&other, &png, "t1", None, "output").await.unwrap(), "but not for another tenant");
        let found = media.find(&acme, &png.id).await.unwrap().unwrap();
        assert_eq!((found.bytes, found.traces.clone()), (9, hashes(&["t1", "t2"])));
        assert_eq!(media.of(&acme).await.unwrap(), [found]);
        assert_eq!(media.of(&other).await.unwrap(), []);
        assert_eq!(media.read(&acme, &png).await.unwrap(), Some(body.clone()));

        assert_eq!(media.forget(&acme, hashes(&["t1", "t3"]), HashSet::new()).await.unwrap(), 1);
        assert!(media.find(&acme, &png.id).await.unwrap().is_some(), "another trace has it");
        assert_eq!(media.forget(&acme, hashes(&["t2"]), HashSet::new()).await.unwrap(), 2);
        assert_eq!(media.find(&acme, &png.id).await.unwrap(), None);
        assert_eq!(media.read(&acme, &png).await.unwrap(), None);
        // Of two observations of a trace that is kept, one goes, and then the other.
        media.mention(&acme, &png, "t4", Some("a"), "input").await.unwrap();
        media.mention(&acme, &png, "t4", Some("b"), "input").await.unwrap();
        assert_eq!(media.put(&acme, &png, body.clone()).await.unwrap(), Put::Stored);
        let forget =
            async |id: &str| media.forget(&acme, HashSet::new(), [key_hash(&["t4", id])].into()).await.unwrap();
        assert_eq!(forget("a").await, 1);
        assert_eq!(media.find(&acme, &png.id).await.unwrap().unwrap().traces, hashes(&["t4"]));
        assert_eq!(forget("b").await, 2);
        assert_eq!(media.find(&acme, &png.id).await.unwrap(), None);
        for id in ["../../system", "", "a", "DbZi9rgtXF2l_6ZqRAH5q/"] {
            assert_eq!(media.find(&acme, id).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn mentions_go_by_day_and_what_nobody_mentions_a_day_later() {
        let location = Location::Memory(Arc::new(InMemory::new()));
        // The store says by the real clock when an object was made.
        let clock = ManualClock::at(SystemClock.now_us());
        let media = media(&location, &clock).await;
        let acme: TenantId = "acme".parse().unwrap();
        for (text, trace) in [("one", "t1"), ("two", "t2")] {
            let kind = kind(text.as_bytes());
            media.mention(&acme, &kind, trace, None, "input").await.unwrap();
            media.put(&acme, &kind, Bytes::from(text)).await.unwrap();
        }
        let listed = async || media.0.store.list(&store::tenant_root(&acme), None).await.unwrap();
        let today = Day::of_us(SystemClock.now_us());
        assert_eq!(media.retire(&acme, Some(today)).await.unwrap(), 0);
        let mention = store::media_mention(&acme, &kind(b"two").id, key_hash(&["t2"]), 0);
        media.0.store.delete(&mention).await.unwrap();
        assert_eq!(media.retire(&acme, None).await.unwrap(), 0, "its mention may be on its way");
        clock.advance_us(2 * UNMENTIONED_KEPT_US);
        assert_eq!(media.retire(&acme, None).await.unwrap(), 1);
        let tomorrow = Day::from_days(today.days() + 1);
        assert_eq!(media.retire(&acme, Some(tomorrow)).await.unwrap(), 2);
        assert!(listed().await.is_empty());
    }

    #[tokio::test]
    async fn a_link_is_good_for_what_it_was_made_for_and_on_every_node() {
        let location = Location::Memory(Arc::new(InMemory::new()));
        let clock = ManualClock::at(1_000);
        let (media, elsewhere) = (media(&location, &clock).await, media(&location, &clock).await);
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let (png, more) = (kind(b"a picture"), kind(b"another"));
        let signature = media.signature(MediaAction::Download, &acme, &png, 2_000).await.unwrap();
        let good = async |signature: &str, action, tenant, kind, until_us| {
            elsewhere.is_signed(signature, action, tenant, kind, until_us).await.unwrap()
        };
        assert!(good(&signature, MediaAction::Download, &acme, &png, 2_000).await);
        assert!(!good(&signature, MediaAction::Upload, &acme, &png, 2_000).await);
        assert!(!good(&signature, MediaAction::Download, &other, &png, 2_000).await);
        assert!(!good(&signature, MediaAction::Download, &acme, &more, 2_000).await);
        assert!(!good(&signature, MediaAction::Download, &acme, &png, 3_000).await);
        assert!(!good(&signature[2..], MediaAction::Download, &acme, &png, 2_000).await);
        assert!(!good("", MediaAction::Download, &acme, &png, 2_000).await);
        clock.advance_us(1_000);
        assert!(!good(&signature, MediaAction::Download, &acme, &png, 2_000).await, "its time is over");
    }

    #[test]
    fn a_medium_is_named_as_langfuses_clients_name_it() {
        let png = kind(b"a picture");
        let whole = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(b"a picture"));
        assert!(png.is_of(b"a picture") && !png.is_of(b"another") && whole.starts_with(&png.id) && png.id.len() == 22);
        assert_eq!(MediaKind::new(&[0; 32], "Text/HTML; charset=utf-8").unwrap().content_type, "text/html");
        for (hash, content_type, says) in [
            (31, "image/png", "32 bytes"),
            (32, "image", "media type"),
            (32, "image/../x", "media type"),
            (32, "a_b/c", "media type"),
        ] {
            let refused = MediaKind::new(&vec![0; hash], content_type).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
