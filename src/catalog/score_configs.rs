//! Score configurations: what a score of a name may be. `system/score-configs/{tenant}/{id}/{version}` holds each version
//! whole; the highest counts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::recent::Recent;
use super::system::{Result, SystemError, SystemObjects};
use crate::base::{TenantId, TimestampUs};
use crate::model::{Score, ScoreDataType};

const CONFIGS: &str = "score-configs";
/// Configurations of one tenant.
pub const CONFIGS_MAX: usize = 1_000;
const CATEGORIES_MAX: usize = 1_000;
const NAME_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Kept in memory, of all tenants.
const RECENT_MAX: usize = 10_000;

/// One version of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreConfig {
    pub id: String,
    pub version: u64,
    pub created_us: TimestampUs,
    pub updated_us: TimestampUs,
    /// No new scores may have it.
    pub is_archived: bool,
    #[serde(flatten)]
    pub rule: ScoreRule,
}

/// What its author says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRule {
    pub name: String,
    /// `NUMERIC`, `BOOLEAN`, `CATEGORICAL` or `TEXT`.
    pub data_type: String,
    pub min_value: Option<f64>,
    pub max_value: Option<f64>,
    pub categories: Vec<Category>,
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Category {
    pub label: String,
    pub value: f64,
}

/// The configurations of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScoreConfigs {
    objects: SystemObjects,
    recent: Arc<Recent<Option<Arc<ScoreConfig>>>>,
}

impl ScoreConfigs {
    pub fn new(objects: SystemObjects) -> Self {
        Self { objects, recent: Arc::new(Recent::new(RECENT_MAX)) }
    }

    /// In force here on return, elsewhere within 10 seconds.
    pub async fn create(&self, tenant: &TenantId, rule: ScoreRule) -> Result<Arc<ScoreConfig>> {
        rule.check()?;
        if self.list(tenant).await?.len() >= CONFIGS_MAX {
            return Err(SystemError::Invalid(format!("a tenant has at most {CONFIGS_MAX} score configurations")));
        }
        let now_us = self.objects.now_us();
        let id = Uuid::new_v4().to_string();
        let first = ScoreConfig { id, version: 1, created_us: now_us, updated_us: now_us, is_archived: false, rule };
        self.write(tenant, first).await
    }

    /// Writes the next version, as `change` makes it of the newest.
    pub async fn update(
        &self,
        tenant: &TenantId,
        id: &str,
        change: impl FnOnce(&mut ScoreConfig),
    ) -> Result<Arc<ScoreConfig>> {
        self.recent.forget(&name_of(tenant, id));
        let Some(newest) = self.find(tenant, id).await? else { return Err(missing(id)) };
        let mut next = ScoreConfig::clone(&newest);
        change(&mut next);
        next.rule.check()?;
        (next.id, next.version) = (newest.id.clone(), newest.version + 1);
        (next.created_us, next.updated_us) = (newest.created_us, self.objects.now_us());
        self.write(tenant, next).await
    }

    async fn write(&self, tenant: &TenantId, config: ScoreConfig) -> Result<Arc<ScoreConfig>> {
        let (folder, version) = (folder(tenant, &config.id), config.version);
        let theirs = self.objects.create(&folder, &format!("{version:020}"), config.clone()).await?;
        self.recent.forget(&name_of(tenant, &config.id));
        match theirs {
            None => Ok(Arc::new(config)),
            Some(_) => Err(SystemError::Invalid("it was changed by another at the same time: try again".to_owned())),
        }
    }

    /// The newest version, at most 10 seconds old; never lists.
    pub async fn find(&self, tenant: &TenantId, id: &str) -> Result<Option<Arc<ScoreConfig>>> {
        // Others are no ids of ours, and none may lead out of its folder.
        if Uuid::parse_str(id).is_err() {
            return Ok(None);
        }
        let (name, now_us) = (name_of(tenant, id), self.objects.now_us());
        if let Some(known) = self.recent.get(&name, now_us) {
            return Ok(known);
        }
        let (folder, mut newest) = (folder(tenant, id), None);
        for version in 1u64.. {
            match self.objects.get::<ScoreConfig>(&folder, &format!("{version:020}")).await? {
                Some(found) => newest = Some(Arc::new(found)),
                None => break,
            }
        }
        self.recent.put(&name, now_us, newest.clone());
        Ok(newest)
    }

    pub async fn get(&self, tenant: &TenantId, id: &str) -> Result<Arc<ScoreConfig>> {
        self.find(tenant, id).await?.ok_or_else(|| missing(id))
    }

    /// All of a tenant, newest first. One LIST.
    pub async fn list(&self, tenant: &TenantId) -> Result<Vec<ScoreConfig>> {
        let found = self.objects.newest_of_each::<ScoreConfig>(&format!("{CONFIGS}/{tenant}")).await?;
        let mut all: Vec<ScoreConfig> = found.into_values().collect();
        all.sort_by(|a, b| (b.created_us, &b.id).cmp(&(a.created_us, &a.id)));
        Ok(all)
    }
}

fn folder(tenant: &TenantId, id: &str) -> String {
    format!("{CONFIGS}/{tenant}/{id}")
}

fn name_of(tenant: &TenantId, id: &str) -> String {
    format!("{tenant}/{id}")
}

fn missing(id: &str) -> SystemError {
    SystemError::ScoreConfigMissing(id.chars().take(80).collect())
}

impl ScoreRule {
    fn data_type(&self) -> Option<ScoreDataType> {
        ScoreDataType::from_word(&self.data_type).filter(|kind| *kind != ScoreDataType::Correction)
    }

    fn check(&self) -> Result<()> {
        let invalid = |why: &str| Err(SystemError::Invalid(why.to_owned()));
        let Some(data_type) = self.data_type() else {
            return invalid("dataType is NUMERIC, BOOLEAN, CATEGORICAL or TEXT");
        };
        if self.name.is_empty() || self.name.chars().count() > NAME_CHARS_MAX {
            return invalid("a score configuration has a name of 1 to 200 characters");
        }
        if self.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
            return invalid("a description has at most 10000 characters");
        }
        let is_bounded = self.min_value.is_some() || self.max_value.is_some();
        if is_bounded && data_type != ScoreDataType::Numeric {
            return invalid("only a NUMERIC score has minValue and maxValue");
        }
        if self.min_value.zip(self.max_value).is_some_and(|(least, most)| least > most) {
            return invalid("maxValue is below minValue");
        }
        if data_type != ScoreDataType::Categorical && !self.categories.is_empty() {
            return invalid("only a CATEGORICAL score has categories");
        }
        if data_type == ScoreDataType::Categorical {
            let count = self.categories.len();
            if !(1..=CATEGORIES_MAX).contains(&count) {
                return invalid("a CATEGORICAL score has 1 to 1000 categories");
            }
            let mut labels: Vec<&str> = self.categories.iter().map(|category| category.label.as_str()).collect();
            labels.sort_unstable();
            labels.dedup();
            if labels.len() < count || labels.contains(&"") {
                return invalid("each category has a label of its own");
            }
            let mut values: Vec<u64> = self.categories.iter().map(|category| category.value.to_bits()).collect();
            values.sort_unstable();
            values.dedup();
            if values.len() < count {
                return invalid("each category has a value of its own");
            }
        }
        Ok(())
    }
}

impl ScoreConfig {
    /// Puts what the configuration knows into `score`, or says which of its rules the score breaks. `is_type_implied`:
    /// the sender did not say the type.
    pub fn apply(&self, score: &mut Score, is_type_implied: bool) -> Result<(), String> {
        let rule = &self.rule;
        if self.is_archived {
            return Err("its configuration is archived: it takes no new scores".to_owned());
        }
        if score.name != rule.name {
            return Err(format!("its name is {:?}, and its configuration's {:?}", score.name, rule.name));
        }
        let Some(asked) = rule.data_type() else { return Err("its configuration has no known type".to_owned()) };
        let said = ScoreDataType::try_from(score.data_type).unwrap_or(ScoreDataType::Numeric);
        match (said, asked) {
            (said, asked) if said == asked => {}
            (ScoreDataType::Numeric, ScoreDataType::Boolean) if is_type_implied => {
                let word = match score.value {
                    Some(1.0) => "True",
                    Some(0.0) => "False",
                    _ => return Err("the value of a BOOLEAN score is 0 or 1".to_owned()),
                };
                score.string_value = Some(word.to_owned());
            }
            (ScoreDataType::Categorical, ScoreDataType::Text) if is_type_implied => {}
            (said, asked) => {
                return Err(format!("its type is {}, and its configuration's {}", said.as_str(), asked.as_str()));
            }
        }
        score.data_type = asked.into();
        match asked {
            ScoreDataType::Numeric => {
                let value = score.value.unwrap_or_default();
                if rule.min_value.is_some_and(|least| value < least) {
                    return Err(format!("its value {value} is below the least of its configuration"));
                }
                if rule.max_value.is_some_and(|most| value > most) {
                    return Err(format!("its value {value} is above the most of its configuration"));
                }
            }
            ScoreDataType::Categorical => {
                let label = score.string_value.as_deref().unwrap_or_default();
                let Some(category) = rule.categories.iter().find(|category| category.label == label) else {
                    let shown: String = label.chars().take(80).collect();
                    return Err(format!("{shown:?} is no category of its configuration"));
                };
                score.value = Some(category.value);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::base::{Clock, ManualClock};
    use crate::store::{Location, Store};

    fn rule(data_type: &str) -> ScoreRule {
        let categories = match data_type {
            "CATEGORICAL" => [("good", 1.0), ("bad", -1.0)].map(|(label, value)| (label.to_owned(), value)).to_vec(),
            _ => Vec::new(),
        };
        let categories = categories.into_iter().map(|(label, value)| Category { label, value }).collect();
        ScoreRule {
            name: "q".into(),
            data_type: data_type.into(),
            min_value: (data_type == "NUMERIC").then_some(0.0),
            max_value: (data_type == "NUMERIC").then_some(5.0),
            categories,
            description: None,
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_here_at_once_and_elsewhere_in_ten_seconds() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let clock = ManualClock::at(1_000_000);
        let objects = SystemObjects::new(store, Arc::new(clock.clone()) as Arc<dyn Clock>);
        let (here, there) = (ScoreConfigs::new(objects.clone()), ScoreConfigs::new(objects));
        let (acme, other) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let created = here.create(&acme, rule("NUMERIC")).await.unwrap();
        assert_eq!(there.get(&acme, &created.id).await.unwrap(), created);
        assert!(here.get(&other, &created.id).await.is_err(), "another tenant's");
        assert!(here.find(&acme, "../acme").await.unwrap().is_none());
        let archived = here.update(&acme, &created.id, |config| config.is_archived = true).await.unwrap();
        assert_eq!((archived.version, archived.is_archived), (2, true));
        assert_eq!(here.get(&acme, &created.id).await.unwrap(), archived);
        assert!(!there.get(&acme, &created.id).await.unwrap().is_archived);
        clock.advance_us(10_000_000);
        assert_eq!(there.get(&acme, &created.id).await.unwrap(), archived);
        assert_eq!(here.list(&acme).await.unwrap(), [ScoreConfig::clone(&archived)]);
        assert!(here.list(&other).await.unwrap().is_empty());
    }

    #[test]
    fn rules_that_say_nothing_or_contradict_themselves_are_refused() {
        let check = |change: fn(&mut ScoreRule), data_type: &str| {
            let mut rule = rule(data_type);
            change(&mut rule);
            rule.check().map_err(|e| e.to_string())
        };
        for data_type in ["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT"] {
            assert_eq!(check(|_| {}, data_type), Ok(()));
        }
        assert!(check(|_| {}, "CORRECTION").is_err());
        assert!(check(|rule| rule.name.clear(), "TEXT").is_err());
        assert!(check(|rule| rule.max_value = Some(-1.0), "NUMERIC").is_err());
        assert!(check(|rule| rule.min_value = Some(0.0), "BOOLEAN").is_err());
        assert!(check(|rule| rule.categories.clear(), "CATEGORICAL").is_err());
        assert!(check(|rule| rule.categories[1].label = "good".into(), "CATEGORICAL").is_err());
        assert!(check(|rule| rule.categories[1].value = 1.0, "CATEGORICAL").is_err());
    }

    #[test]
    fn a_score_keeps_to_its_configuration_or_is_told_why_not() {
        let check = |data_type: &str, mut score: Score, implied: bool| {
            let config = ScoreConfig {
                id: "c".into(),
                version: 1,
                created_us: 0,
                updated_us: 0,
                is_archived: false,
                rule: rule(data_type),
            };
            config.apply(&mut score, implied).map(|()| (score.data_type, score.value, score.string_value))
        };
        let number = |value: f64| Score { name: "q".into(), value: Some(value), ..Default::default() };
        let word = |text: &str| Score {
            name: "q".into(),
            data_type: ScoreDataType::Categorical.into(),
            string_value: Some(text.into()),
            ..Default::default()
        };
        assert_eq!(check("NUMERIC", number(5.0), false), Ok((0, Some(5.0), None)));
        assert_eq!(
            check("NUMERIC", number(5.1), false).unwrap_err(),
            "its value 5.1 is above the most of its configuration"
        );
        assert!(check("NUMERIC", number(-0.1), false).unwrap_err().contains("below"));
        assert_eq!(check("BOOLEAN", number(1.0), true), Ok((1, Some(1.0), Some("True".into()))));
        assert!(check("BOOLEAN", number(1.0), false).unwrap_err().contains("NUMERIC"));
        assert!(check("BOOLEAN", number(0.5), true).unwrap_err().contains("0 or 1"));
        assert_eq!(check("CATEGORICAL", word("bad"), false), Ok((2, Some(-1.0), Some("bad".into()))));
        assert_eq!(
            check("CATEGORICAL", word("ugly"), false).unwrap_err(),
            "\"ugly\" is no category of its configuration"
        );
        assert_eq!(check("TEXT", word("any"), true), Ok((3, None, Some("any".into()))));
        assert!(check("NUMERIC", Score { name: "r".into(), ..number(1.0) }, false).unwrap_err().contains("name"));
    }
}
