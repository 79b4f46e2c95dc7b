//! The first tenant and its key, from the environment: a container then needs no manual step. Langfuse's names are
//! understood as well.

use super::ConfigError;
use crate::base::TenantId;
use crate::catalog::keys::FirstTenant;

const TENANT: [&str; 2] = ["TRACELAKE_INIT_TENANT", "LANGFUSE_INIT_PROJECT_ID"];
const PUBLIC_KEY: [&str; 2] = ["TRACELAKE_INIT_PUBLIC_KEY", "LANGFUSE_INIT_PROJECT_PUBLIC_KEY"];
const SECRET_KEY: [&str; 2] = ["TRACELAKE_INIT_SECRET_KEY", "LANGFUSE_INIT_PROJECT_SECRET_KEY"];
/// The tenant of a key that is given without one.
const TENANT_DEFAULT: &str = "default";

pub(super) fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Option<FirstTenant>, ConfigError> {
    // An empty variable is an absent one: compose files write `NAME=`.
    let first = |names: [&'static str; 2]| {
        names
            .into_iter()
            .find_map(|name| environment(name).filter(|value| !value.is_empty()).map(|value| (name, value)))
    };
    let key = match (first(PUBLIC_KEY), first(SECRET_KEY)) {
        (Some((_, public_key)), Some((_, secret_key))) => Some((public_key, secret_key)),
        (None, None) => None,
        (Some((name, _)), None) => return Err(alone(name, SECRET_KEY[0])),
        (None, Some((name, _))) => return Err(alone(name, PUBLIC_KEY[0])),
    };
    let (name, tenant) = match (first(TENANT), &key) {
        (None, None) => return Ok(None),
        (None, Some(_)) => (TENANT[0], TENANT_DEFAULT.to_owned()),
        (Some(given), _) => given,
    };
    let tenant: TenantId =
        tenant.parse().map_err(|e| ConfigError::Invalid(format!("{name}: {e}; {} wins over it", TENANT[0])))?;
    Ok(Some(FirstTenant { tenant, key }))
}

fn alone(given: &str, missing: &str) -> ConfigError {
    ConfigError::Invalid(format!("{given} is set but {missing} is not: a first key needs both"))
}
