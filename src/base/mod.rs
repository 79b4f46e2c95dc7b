//! Words every room shares: tenants, days, byte sizes, money, time, budgets, kinds of error.
//!
//! Promises: values that exist are valid (a `TenantId` is always a legal path segment, a `Day` a real day).
//! Must never know: what an observation is, where bytes live, who is asking.

mod budget;
mod clock;
mod error;
mod ids;
mod money;
mod size;

pub use budget::{Budget, Reservation};
pub use clock::{Clock, Day, ManualClock, SystemClock, TimestampUs};
pub use error::Kind;
pub use ids::{InvalidId, TenantId, WriterId};
pub use money::{Money, MoneyError};
pub use size::ByteSize;

/// For what is looked up once for every row: by a hash several times faster than the standard one's.
pub type RowMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
pub type RowSet<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;
