use object_store::memory::InMemory;

use super::*;
use crate::base::{Kind, ManualClock};
use crate::store::{Counts, Location, Store};

struct World {
    store: Store,
    clock: ManualClock,
    keys: Keys,
    tenant: TenantId,
}

impl World {
    async fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let clock = ManualClock::at(1_000_000_000);
        let store = Store::open(Location::Memory(objects)).await.unwrap();
        let keys = open(&store, &clock).await;
        let tenant: TenantId = "acme".parse().unwrap();
        keys.tenants().create(&tenant).await.unwrap();
        Self { store, clock, keys, tenant }
    }

    /// The same store as another node sees it.
    async fn other_node(&self) -> Keys {
        open(&self.store, &self.clock).await
    }

    async fn key(&self, roles: &[Role]) -> CreatedKey {
        self.keys.create(self.with_roles(roles)).await.unwrap()
    }

    fn with_roles(&self, roles: &[Role]) -> NewKey {
        NewKey::with_roles(self.tenant.clone(), roles.iter().copied().collect())
    }
}

async fn open(store: &Store, clock: &ManualClock) -> Keys {
    let objects = SystemObjects::new(store.clone(), Arc::new(clock.clone()));
    Keys::open(objects.clone(), Tenants::new(objects)).await.unwrap()
}

async fn shows(keys: &Keys, key: &CreatedKey) -> Result<Identity> {
    keys.authenticate(&key.public_key, &key.secret_key).await
}

#[tokio::test]
async fn a_key_opens_its_tenant_and_only_with_its_secret() {
    let world = World::new().await;
    let key = world.key(&[Role::Ingest, Role::Read]).await;
    let who = shows(&world.keys, &key).await.unwrap();
    assert_eq!((who.tenant.as_str(), who.public_key.as_str()), ("acme", key.public_key.as_str()));
    let wrong_secret = world.keys.authenticate(&key.public_key, "sk-lf-guess").await.unwrap_err();
    let unknown_key = world.keys.authenticate("pk-lf-guess", &key.secret_key).await.unwrap_err();
    assert_eq!(wrong_secret.kind(), Kind::Unauthenticated);
    assert_eq!(wrong_secret.to_string(), unknown_key.to_string(), "nobody learns which keys exist");
    assert!(shows(&world.other_node().await, &key).await.is_ok(), "the pepper is the store's, not the node's");
}

#[tokio::test]
async fn the_secret_does_not_stand_in_the_store() {
    let world = World::new().await;
    let key = world.key(&[Role::Read]).await;
    for meta in world.store.list(&crate::store::system("keys", ""), None).await.unwrap() {
        let body = world.store.get(&meta.location).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&body).contains(&key.secret_key));
    }
    assert!(!format!("{:?}", world.keys.list(None).await.unwrap()).contains(&key.secret_key));
}

#[tokio::test]
async fn a_wrong_role_is_refused_naming_the_one_needed_and_nothing_is_implied() {
    let world = World::new().await;
    let all = [Role::Ingest, Role::Read, Role::Admin, Role::Platform];
    for has in all {
        let key = world.key(&[has]).await;
        let who = shows(&world.keys, &key).await.unwrap();
        for needed in all {
            match who.require(needed) {
                Ok(()) => assert_eq!(has, needed),
                Err(refused) => {
                    assert_ne!(has, needed);
                    assert_eq!(refused.kind(), Kind::Forbidden);
                    assert!(refused.to_string().contains(&format!("the role `{needed}`")), "{refused}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_key_ends_at_its_expiry_to_the_microsecond() {
    let world = World::new().await;
    let expires_us = Some(1_000_000_000 + 5_000_000);
    let key = world.keys.create(NewKey { expires_us, ..world.with_roles(&[Role::Read]) }).await.unwrap();
    world.clock.advance_us(4_999_999);
    assert!(shows(&world.keys, &key).await.is_ok());
    world.clock.advance_us(1);
    assert!(shows(&world.keys, &key).await.unwrap_err().to_string().contains("expired"));
}

#[tokio::test]
async fn a_revocation_holds_here_at_once_and_elsewhere_within_ten_seconds() {
    let world = World::new().await;
    let key = world.key(&[Role::Read]).await;
    let elsewhere = world.other_node().await;
    shows(&elsewhere, &key).await.unwrap();
    shows(&world.keys, &key).await.unwrap();
    world.keys.revoke(&key.public_key).await.unwrap();
    world.keys.revoke(&key.public_key).await.unwrap();
    assert!(shows(&world.keys, &key).await.unwrap_err().to_string().contains("revoked"));
    world.clock.advance_us(10_000_000);
    assert_eq!(shows(&elsewhere, &key).await.unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(world.keys.revoke("pk-lf-none").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_key_made_elsewhere_is_known_within_ten_seconds_of_a_failed_try() {
    let world = World::new().await;
    let elsewhere = world.other_node().await;
    let first = FirstTenant { tenant: world.tenant.clone(), key: Some(("Pub/../Key".into(), "s".into())) };
    assert!(elsewhere.authenticate("Pub/../Key", "s").await.is_err());
    assert_eq!(world.keys.ensure_first(&first).await.unwrap(), FirstKey::Created);
    world.clock.advance_us(10_000_000);
    assert_eq!(elsewhere.authenticate("Pub/../Key", "s").await.unwrap().tenant, world.tenant);
}

#[tokio::test]
async fn look_ups_are_remembered_and_never_list() {
    let world = World::new().await;
    let key = world.key(&[Role::Read]).await;
    shows(&world.keys, &key).await.unwrap();
    world.keys.authenticate("pk-lf-none", "x").await.unwrap_err();
    let before = world.store.counts();
    for _ in 0..100 {
        shows(&world.keys, &key).await.unwrap();
        world.keys.authenticate("pk-lf-none", "x").await.unwrap_err();
    }
    assert_eq!(world.store.counts(), before);
    world.clock.advance_us(10_000_000);
    shows(&world.keys, &key).await.unwrap();
    assert_eq!(world.store.counts(), Counts { get: before.get + 4, ..before });
}

#[tokio::test]
async fn the_first_tenant_is_created_once_and_another_secret_is_an_error_that_says_so() {
    let world = World::new().await;
    let first = |secret: &str| FirstTenant {
        tenant: "first".parse().unwrap(),
        key: Some(("pk-lf-first".into(), secret.into())),
    };
    assert_eq!(world.keys.ensure_first(&first("one")).await.unwrap(), FirstKey::Created);
    assert_eq!(world.keys.ensure_first(&first("one")).await.unwrap(), FirstKey::Present);
    let differs = world.keys.ensure_first(&first("two")).await.unwrap_err();
    assert!(differs.to_string().contains("pk-lf-first exists already with another secret"), "{differs}");
    let who = world.keys.authenticate("pk-lf-first", "one").await.unwrap();
    assert!(who.require(Role::Ingest).is_ok() && who.require(Role::Read).is_ok() && who.require(Role::Admin).is_ok());
    world.keys.revoke("pk-lf-first").await.unwrap();
    assert_eq!(world.keys.ensure_first(&first("one")).await.unwrap(), FirstKey::Revoked);
}

#[tokio::test]
async fn a_deleted_tenant_locks_its_keys_and_its_id_is_never_used_again() {
    let world = World::new().await;
    let key = world.key(&[Role::Read]).await;
    shows(&world.keys, &key).await.unwrap();
    world.keys.tenants().delete(&world.tenant).await.unwrap();
    world.clock.advance_us(10_000_000);
    assert_eq!(shows(&world.keys, &key).await.unwrap_err().kind(), Kind::Unauthenticated);
    let again = world.keys.tenants().create(&world.tenant).await.unwrap_err();
    assert!(again.to_string().contains("never used again"), "{again}");
    let listed = world.keys.tenants().list().await.unwrap();
    assert!(listed[0].id == "acme" && listed[0].deleted_us.is_some());
    assert!(world.keys.create(world.with_roles(&[Role::Read])).await.is_err());
}

#[tokio::test]
async fn only_a_key_that_may_write_for_others_chooses_a_tenant() {
    let world = World::new().await;
    for tenant in ["one", "two"] {
        world.keys.tenants().create(&tenant.parse().unwrap()).await.unwrap();
    }
    let listed = WritesFor::Listed(BTreeSet::from(["one".to_owned()]));
    // (what the key may, the tenant it names, where the data goes)
    let cases = [
        (WritesFor::Own, None, Ok("acme")),
        (WritesFor::Own, Some("acme"), Ok("acme")),
        (WritesFor::Own, Some("one"), Err(Kind::Forbidden)),
        (listed.clone(), None, Ok("acme")),
        (listed.clone(), Some("one"), Ok("one")),
        (listed, Some("two"), Err(Kind::Forbidden)),
        (WritesFor::All, Some("two"), Ok("two")),
        (WritesFor::All, Some("none"), Err(Kind::NotFound)),
        (WritesFor::All, Some("No Name"), Err(Kind::Invalid)),
    ];
    for (writes_for, named, expected) in cases {
        let new = NewKey { writes_for: writes_for.clone(), ..world.with_roles(&[Role::Ingest]) };
        let key = world.keys.create(new).await.unwrap();
        let who = shows(&world.keys, &key).await.unwrap();
        let goes = world.keys.tenant_for(&who, named).await;
        let goes = goes.as_ref().map(TenantId::as_str).map_err(SystemError::kind);
        assert_eq!(goes, expected, "{writes_for:?} {named:?}");
    }
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let bound = Some(Bound::Account("a".into()));
    let cases = [
        world.with_roles(&[]),
        NewKey { writes_for: WritesFor::All, ..world.with_roles(&[Role::Read]) },
        NewKey { bound, ..world.with_roles(&[Role::Ingest, Role::Read]) },
    ];
    for new in cases {
        assert_eq!(world.keys.create(new).await.err().map(|e| e.kind()), Some(Kind::Invalid));
    }
    for public_key in ["", "has:colon", "has space", &"x".repeat(101)] {
        let first = FirstTenant { tenant: world.tenant.clone(), key: Some((public_key.into(), "s".into())) };
        assert_eq!(world.keys.ensure_first(&first).await.unwrap_err().kind(), Kind::Invalid, "{public_key:?}");
    }
}

#[test]
fn public_keys_are_safe_and_different_as_path_segments() {
    assert_eq!(path_segment("pk-lf-0a"), "pk-lf-0a");
    assert_eq!(path_segment("../A"), "_2e2e2f41");
    assert_ne!(path_segment("KEY"), path_segment("key"));
    assert!(path_segment(&"X".repeat(100)).len() < 255);
}

#[tokio::test]
async fn the_day_of_a_keys_last_use_is_stored_once_a_day_and_listed() {
    let world = World::new().await;
    let key = world.key(&[Role::Read]).await;
    let last_used = async || world.other_node().await.list(None).await.unwrap()[0].last_used;
    assert_eq!(last_used().await, None);
    let puts = |counts: Counts| counts.put;
    for day in 0..2 {
        let before = puts(world.store.counts());
        for _ in 0..5 {
            shows(&world.keys, &key).await.unwrap();
            world.keys.authenticate(&key.public_key, "wrong").await.unwrap_err();
            world.keys.store_uses().await.unwrap();
        }
        assert_eq!(puts(world.store.counts()) - before, 1, "one write a day");
        assert_eq!(last_used().await, Some(Day::from_days(day)));
        world.clock.advance_us(Day::US);
    }
    let stale = world.other_node().await;
    assert!(stale.authenticate(&key.public_key, "wrong").await.is_err());
    stale.store_uses().await.unwrap();
    assert_eq!(last_used().await, Some(Day::from_days(1)), "a wrong secret is no use of the key");
}
