//! What the doors on the way in do with a request once it is read: decode, append, and say what was refused.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use super::auth::Caller;
use super::{Door, Doors, Refusal};
use crate::base::{Kind, Reservation};
use crate::catalog::media::MediaKind;
use crate::catalog::system::SystemError;
use crate::decode::{Decoded, InlineMedium};
use crate::model::{EventBatch, MediaCounts, Rejection};

/// Larger requests are decoded on a thread of their own, so that small ones do not wait behind them.
const DECODE_HERE_BYTES_MAX: usize = 256 << 10;
const RULES_SETTLE: Duration = Duration::from_secs(1);
/// Media of one request that are on their way to the store at once.
const PUTS_AT_ONCE: usize = 8;
/// The sentence about refused spans is cut here.
const REASONS_CHARS_MAX: usize = 1_000;

/// What a request left behind: it is durable when this is returned.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) items: u64,
    pub(super) rejections: Vec<Rejection>,
}

/// Decodes a request of `bytes` and appends what it holds.
pub(super) async fn keep(
    doors: &Doors,
    door: Door,
    caller: &Caller,
    room: Reservation,
    bytes: usize,
    decode: impl FnOnce() -> Result<Decoded, Refusal> + Send + 'static,
) -> Result<Kept, Refusal> {
    let decoded = decode_aside(bytes, decode).await?;
    keep_decoded(doors, door, caller, room, bytes, decoded).await
}

/// Appends what a request of `bytes` held. A request that held nothing costs no append.
pub(super) async fn keep_decoded(
    doors: &Doors,
    door: Door,
    caller: &Caller,
    room: Reservation,
    bytes: usize,
    decoded: Decoded,
) -> Result<Kept, Refusal> {
    let decoded = masked(doors, caller, bytes, decoded).await?;
    let Decoded { mut batch, items, mut rejections, media } = decoded;
    rejections.extend(doors.intake.refuse_erased(&caller.tenant, &mut batch).await);
    batch.media = keep_media(doors, caller, &batch, media).await?;
    doors.counters.received(door, bytes as u64, batch.received, &rejections);
    if items > 0 || !batch.events.is_empty() || !rejections.is_empty() {
        batch.door = door.as_str().to_owned();
        doors.intake.append(&caller.tenant, batch, room).await.map_err(Refusal::on_the_way_in)?;
    }
    Ok(Kept { items, rejections })
}

/// Stores what stood as base64 in texts that are kept, before the references to it are: each once, however often it stands.
async fn keep_media(
    doors: &Doors,
    caller: &Caller,
    batch: &EventBatch,
    media: Vec<InlineMedium>,
) -> Result<Option<MediaCounts>, Refusal> {
    if media.is_empty() {
        return Ok(None);
    }
    let kept: BTreeSet<&str> = batch.events.iter().filter_map(|event| event.kind.as_ref()?.trace_id()).collect();
    let mut alike: BTreeMap<([u8; 32], String), Vec<InlineMedium>> = BTreeMap::new();
    for medium in media.into_iter().filter(|medium| kept.contains(medium.trace_id.as_str())) {
        alike.entry((medium.sha256, medium.content_type.clone())).or_default().push(medium);
    }
    let tenant = &caller.tenant;
    let stored = stream::iter(alike).map(|((sha256, content_type), mentions)| async move {
        let kind = MediaKind::new(&sha256, &content_type)?;
        let (mut is_there, received) = (false, mentions.len() as u64);
        for medium in &mentions {
            let (trace, observation) = (medium.trace_id.as_str(), medium.observation_id.as_deref());
            is_there = doors.media.mention(tenant, &kind, trace, observation, medium.field).await?;
        }
        if let Some(medium) = mentions.into_iter().next().filter(|_| !is_there) {
            doors.counters.medium(medium.body.len() as u64);
            doors.media.store(tenant, &kind, medium.body).await?;
        }
        Ok::<_, SystemError>((received, u64::from(!is_there)))
    });
    let kept: Result<Vec<_>, SystemError> = stored.buffer_unordered(PUTS_AT_ONCE).try_collect().await;
    let kept = kept.map_err(|error| Refusal::from(error).on_the_way_in())?;
    let (received, stored) = kept.into_iter().fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    Ok(Some(MediaCounts { received, stored, merged: received - stored, ..Default::default() }))
}

/// Without what the tenant's masking rules take out: every door's requests come by here, before any of them is written.
/// One look where there are no rules.
async fn masked(doors: &Doors, caller: &Caller, bytes: usize, mut decoded: Decoded) -> Result<Decoded, Refusal> {
    let Some(mask) = doors.maskings.mask(&caller.tenant) else { return Ok(decoded) };
    if !decoded.media.is_empty() {
        // Set while the request was decoded: sent again, the rules see its texts whole.
        return Err(Refusal::unavailable("the masking rules were just changed", RULES_SETTLE));
    }
    let mask = move || {
        mask.apply(&mut decoded.batch);
        Ok(decoded)
    };
    decode_aside(bytes, mask).await
}

/// Runs `decode` of `bytes`, aside if they are many.
pub(super) async fn decode_aside<T: Send + 'static>(
    bytes: usize,
    decode: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    // Decoding does not panic. If it does all the same, the same bytes would make it panic again: retrying is no use.
    let guarded = move || {
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
            tracing::error!(bytes, "decoding a request panicked; the request was refused");
            Err(Refusal::new(Kind::Invalid, "the request cannot be decoded"))
        })
    };
    if bytes <= DECODE_HERE_BYTES_MAX {
        return guarded();
    }
    let stopped = |_| Refusal::new(Kind::Unavailable, "the server is stopping");
    tokio::task::spawn_blocking(guarded).await.map_err(stopped)?
}

impl Kept {
    /// One sentence about what was refused and why, with an example of each reason.
    pub(super) fn reasons(&self) -> String {
        let mut by_reason: BTreeMap<&str, (usize, &Rejection)> = BTreeMap::new();
        for rejection in &self.rejections {
            by_reason.entry(rejection.reason.as_str()).or_insert((0, rejection)).0 += 1;
        }
        let sentences: Vec<String> = by_reason
            .into_iter()
            .map(|(reason, (count, first))| match first.id.as_str() {
                "" => format!("{count} {reason}: {}", first.message),
                id => format!("{count} {reason}: {} (id {id})", first.message),
            })
            .collect();
        sentences.join("; ").chars().take(REASONS_CHARS_MAX).collect()
    }
}
