//! `/api/public/score-configs`: what scores of a name may be.

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::super::body::{self, Admission, Encoding, Pieces};
use super::super::super::{Door, Doors, Refusal, auth};
use super::super::instant;
use super::super::problem::Problem;
use super::answer;
use crate::base::{ByteSize, Kind, TenantId};
use crate::catalog::keys::Role;
use crate::catalog::score_configs::{Category, ScoreConfig, ScoreRule};

const BODY_MAX: ByteSize = ByteSize::mib(1);
const PAGE_MAX: usize = 100;
const PAGE_DEFAULT: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    name: String,
    data_type: String,
    min_value: Option<f64>,
    max_value: Option<f64>,
    categories: Option<Vec<Category>>,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    is_archived: Option<bool>,
    name: Option<String>,
    min_value: Option<f64>,
    max_value: Option<f64>,
    categories: Option<Vec<Category>>,
    description: Option<String>,
}

#[derive(Deserialize)]
pub(in crate::doors::http) struct Page {
    page: Option<usize>,
    limit: Option<usize>,
}

pub(in crate::doors::http) async fn create(State(doors): State<Doors>, request: Request) -> Response {
    let created = async {
        let (tenant, said): (_, Created) = said(&doors, request).await?;
        // A boolean's two words are known.
        let categories = said.categories.filter(|_| !said.data_type.eq_ignore_ascii_case("BOOLEAN"));
        let rule = ScoreRule {
            name: said.name,
            data_type: said.data_type.to_ascii_uppercase(),
            min_value: said.min_value,
            max_value: said.max_value,
            categories: categories.unwrap_or_default(),
            description: said.description,
        };
        let config = doors.score_configs.create(&tenant, rule).await?;
        Ok(shown(&tenant, &config))
    };
    answered(&doors, created.await)
}

pub(in crate::doors::http) async fn change(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let changed = async {
        let (tenant, said): (_, Changed) = said(&doors, request).await?;
        let change = |config: &mut ScoreConfig| {
            config.is_archived = said.is_archived.unwrap_or(config.is_archived);
            let rule = &mut config.rule;
            rule.min_value = said.min_value.or(rule.min_value);
            rule.max_value = said.max_value.or(rule.max_value);
            rule.description = said.description.or(rule.description.take());
            if let Some(name) = said.name {
                rule.name = name;
            }
            if let Some(categories) = said.categories {
                rule.categories = categories;
            }
        };
        let config = doors.score_configs.update(&tenant, &id, change).await?;
        Ok(shown(&tenant, &config))
    };
    answered(&doors, changed.await)
}

pub(in crate::doors::http) async fn one(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let who = auth::identity(&doors, &headers).await?;
        let config = doors.score_configs.get(&who.tenant, &id).await?;
        Ok(shown(&who.tenant, &config))
    };
    answered(&doors, found.await)
}

pub(in crate::doors::http) async fn list(
    State(doors): State<Doors>,
    Query(Page { page, limit }): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let found = async {
        let who = auth::identity(&doors, &headers).await?;
        let (page, limit) = (page.unwrap_or(1), limit.unwrap_or(PAGE_DEFAULT));
        if page == 0 || !(1..=PAGE_MAX).contains(&limit) {
            let message = format!("page begins at 1, and limit is 1 to {PAGE_MAX}");
            return Err(Refusal::new(Kind::Invalid, message));
        }
        let all = doors.score_configs.list(&who.tenant).await?;
        let skipped = (page - 1).saturating_mul(limit);
        let some: Vec<Value> = all.iter().skip(skipped).take(limit).map(|config| shown(&who.tenant, config)).collect();
        let (items, pages) = (all.len(), all.len().div_ceil(limit));
        let meta = json!({ "page": page, "limit": limit, "totalItems": items, "totalPages": pages });
        Ok(json!({ "data": some, "meta": meta }))
    };
    answered(&doors, found.await)
}

/// The tenant and what its administrator says.
async fn said<T: serde::de::DeserializeOwned>(doors: &Doors, request: Request) -> Result<(TenantId, T), Refusal> {
    let (parts, body) = request.into_parts();
    let mut pieces = Pieces::new(body);
    let caller = auth::caller(doors, &parts.headers, Role::Admin).await?;
    let admission = Admission::Intake(doors.intake.clone());
    let held = body::read(admission, &mut pieces, None, Encoding::Identity, BODY_MAX).await?;
    let said = serde_json::from_slice(&held.bytes)
        .map_err(|e| Refusal::new(Kind::Invalid, format!("the body is no score configuration: {e}")))?;
    Ok((caller.tenant, said))
}

fn shown(tenant: &TenantId, config: &ScoreConfig) -> Value {
    let rule = &config.rule;
    let categories: Vec<(&str, f64)> = match rule.data_type.as_str() {
        "BOOLEAN" => vec![("True", 1.0), ("False", 0.0)],
        _ => rule.categories.iter().map(|category| (category.label.as_str(), category.value)).collect(),
    };
    let categories: Vec<Value> =
        categories.into_iter().map(|(label, value)| json!({ "label": label, "value": value })).collect();
    json!({
        "id": config.id,
        "name": rule.name,
        "projectId": tenant.as_str(),
        "dataType": rule.data_type,
        "isArchived": config.is_archived,
        "minValue": rule.min_value,
        "maxValue": rule.max_value,
        "categories": if categories.is_empty() { Value::Null } else { categories.into() },
        "description": rule.description,
        "createdAt": instant(config.created_us),
        "updatedAt": instant(config.updated_us),
    })
}

fn answered(doors: &Doors, result: Result<Value, Refusal>) -> Response {
    match result {
        Ok(body) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            answer(StatusCode::OK, &body)
        }
        Err(refusal) => {
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            Problem::from(refusal).into_response()
        }
    }
}
