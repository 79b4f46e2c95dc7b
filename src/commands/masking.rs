//! Masking rules as they are typed and shown.

use tracelake::masking::{BUILT_IN, Find, MaskingAction, MaskingRule};

/// `NAME=ACTION` of a rule that tracelake brings along, or of all of them.
pub(super) fn built_in(text: &str) -> Result<Vec<MaskingRule>, String> {
    let (name, action) =
        text.split_once('=').ok_or_else(|| format!("{text:?}: use NAME=ACTION, such as email=redact"))?;
    let action: MaskingAction = action.parse()?;
    let names = if name == "all" { BUILT_IN.as_slice() } else { &[name] };
    let rule = |name: &&str| MaskingRule { name: (*name).to_owned(), find: Find::BuiltIn, action };
    Ok(names.iter().map(rule).collect())
}

/// `NAME=ACTION:WHAT`.
pub(super) fn told(text: &str, find: fn(String) -> Find) -> Result<MaskingRule, String> {
    let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
    let (name, (action, what)) =
        parts.ok_or_else(|| format!("{text:?}: use NAME=ACTION:WHAT, such as badge=hash:B-[0-9]+"))?;
    Ok(MaskingRule { name: name.to_owned(), find: find(what.to_owned()), action: action.parse()? })
}

/// The rules before, with those of `remove` taken away and the new ones in their places.
pub(super) fn changed(
    before: Vec<MaskingRule>,
    new: Vec<MaskingRule>,
    remove: &[String],
    clear: bool,
) -> Result<Vec<MaskingRule>, String> {
    if let Some(missing) = remove.iter().find(|name| !before.iter().any(|rule| rule.name == **name)) {
        return Err(format!("there is no masking rule {missing} to take away"));
    }
    let mut rules = if clear { Vec::new() } else { before };
    rules.retain(|rule| !remove.contains(&rule.name));
    for rule in new {
        match rules.iter_mut().find(|known| known.name == rule.name) {
            Some(known) => *known = rule,
            None => rules.push(rule),
        }
    }
    Ok(rules)
}

pub(super) fn say(rules: &[MaskingRule]) {
    if rules.is_empty() {
        println!("nothing is masked");
    }
    for rule in rules {
        println!("{rule}");
    }
}
