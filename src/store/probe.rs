//! The start-up probe: a store that does not honour create-if-absent atomically would lose or double data in silence,
//! so it is refused by name. Garage and s3rver fail the first check, check-then-write stores the second.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use uuid::Uuid;

use super::{Result, Store, StoreError, failed, is_denied, system};

const RACERS: usize = 16;
const ROUNDS: usize = 3;

pub(super) async fn probe(store: &Store) -> Result<()> {
    let unfit = |reason: &str| StoreError::Unfit { location: store.location.to_string(), reason: reason.to_owned() };
    for round in 0..ROUNDS {
        let path = system("probe", &Uuid::new_v4().to_string());
        let bodies: Vec<Bytes> = (0..RACERS).map(|_| Bytes::from(Uuid::new_v4().to_string())).collect();
        let put = |body: Bytes| {
            let path = path.clone();
            async move {
                let options = PutOptions::from(PutMode::Create);
                (body.clone(), store.objects.put_opts(&path, PutPayload::from(body), options).await)
            }
        };
        let mut winners = Vec::new();
        if round == 0 {
            // One after the other: the second must be told no, and must not have written.
            let (first, done) = put(bodies[0].clone()).await;
            done.map_err(|e| match e {
                // A folder is made by its first object, a bucket is not.
                object_store::Error::NotFound { .. } => unfit("there is no such bucket: create it first"),
                e => failed("create", &path, e),
            })?;
            if put(bodies[1].clone()).await.1.is_ok() {
                return Err(unfit("it lets a key be created twice (it ignores If-None-Match: *)"));
            }
            winners.push(first);
        } else {
            let mut racing: FuturesUnordered<_> = bodies.iter().cloned().map(put).collect();
            while let Some((body, done)) = racing.next().await {
                match done {
                    Ok(_) => winners.push(body),
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                    Err(e) if is_denied(&e) => return Err(failed("create", &path, e)),
                    // A 503 in the race is a loser with an unknown outcome; the read-back below decides.
                    Err(_) => {}
                }
            }
        }
        let kept = store.get(&path).await?;
        store.delete(&path).await?;
        match (winners.as_slice(), kept) {
            ([winner], Some(kept)) if *winner == kept => {}
            ([], Some(_)) => {}
            ([_], _) => return Err(unfit("a refused create overwrote the object")),
            (winners, _) => {
                let reason = format!("{} of {RACERS} racing creates of one key succeeded", winners.len());
                return Err(unfit(&reason));
            }
        }
    }
    Ok(())
}
