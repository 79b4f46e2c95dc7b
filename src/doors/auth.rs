//! Who is asking: `authorization: Basic base64(public key:secret key)`, the same in HTTP headers and gRPC metadata.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Doors, Refusal, audit};
use crate::base::{Kind, TenantId};
use crate::catalog::keys::{Identity, Role};

/// Names the tenant to write for; only for keys that may write for others.
pub(super) const TENANT_HEADER: &str = "x-tracelake-tenant";

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who asks, and for which tenant: the key's own unless it writes for another.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) who: Identity,
    pub(super) tenant: TenantId,
}

/// The caller behind `headers`, if its key has `role`.
pub(super) async fn caller(doors: &Doors, headers: &HeaderMap, role: Role) -> Result<Caller, Refusal> {
    caller_with(doors, headers, &[role]).await
}

/// The caller behind `headers`, if its key has one of these roles.
pub(super) async fn caller_with(doors: &Doors, headers: &HeaderMap, roles: &[Role]) -> Result<Caller, Refusal> {
    let who = identity(doors, headers).await?;
    let role = who.require_any(roles)?;
    let named = match role {
        Role::Ingest => headers.get(TENANT_HEADER).map(tenant_named).transpose()?,
        _ => None,
    };
    let tenant = doors.keys.tenant_for(&who, named).await?;
    audit::passed(&tenant, role);
    Ok(Caller { who, tenant })
}

/// Whose key it is, whatever it may do.
pub(super) async fn identity(doors: &Doors, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let (public_key, secret_key) = basic(headers.get(AUTHORIZATION))?;
    let who = doors.keys.authenticate(&public_key, &secret_key).await?;
    audit::known(&who);
    Ok(who)
}

fn tenant_named(value: &HeaderValue) -> Result<&str, Refusal> {
    let illegal = |_| Refusal::new(Kind::Invalid, format!("{TENANT_HEADER} is not text"));
    value.to_str().map(str::trim).map_err(illegal)
}

fn basic(header: Option<&HeaderValue>) -> Result<(String, String), Refusal> {
    let refused = |message: &str| Refusal::new(Kind::Unauthenticated, message);
    let header = header.ok_or_else(|| refused("no key: send `authorization: Basic base64(public key:secret key)`"))?;
    let header = header.to_str().map_err(|_| refused("the authorization header is not text"))?;
    let (scheme, credentials) = header.trim().split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused("only Basic authorization is known: send `Basic base64(public key:secret key)`"));
    }
    let decoded = BASE64.decode(credentials.trim()).map_err(|_| refused("the Basic authorization is not base64"))?;
    let decoded = String::from_utf8(decoded).map_err(|_| refused("the Basic authorization is not UTF-8"))?;
    match decoded.split_once(':') {
        Some((public_key, secret_key)) => Ok((public_key.to_owned(), secret_key.to_owned())),
        None => Err(refused("the Basic authorization has no ':' between public and secret key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_read_as_clients_write_them() {
        let parse = |text: &'static str| basic(Some(&HeaderValue::from_static(text)));
        let expected = Ok(("pk".to_owned(), "sk:1".to_owned()));
        for good in ["Basic cGs6c2s6MQ==", "basic cGs6c2s6MQ", " BASIC   cGs6c2s6MQ== "] {
            assert_eq!(parse(good), expected, "{good}");
        }
        for bad in ["", "Basic", "Basic !!", "Basic cGs=", "Bearer cGs6c2s6MQ==", "Basic //8="] {
            assert_eq!(parse(bad).unwrap_err().kind, Kind::Unauthenticated, "{bad}");
        }
        assert!(basic(None).unwrap_err().message.contains("no key"));
    }
}
