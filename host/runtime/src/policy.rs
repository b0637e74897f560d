//! Policy: which implementations may be used, in which order, from one object (file, environment, API).

use std::collections::BTreeMap;
use std::path::Path;

use flagos_backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

/// What to do when a device has no implementation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// An error.
    Forbid,
    /// Run on the fallback device, with one warning per operator and device; counted.
    Warn,
    /// Run on the fallback device silently; counted.
    Allow,
}

/// Where an implementation comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The device's backend.
    Native,
    /// The catalogue's kernel compiled for the device.
    Portable,
    /// The fallback device.
    Fallback,
    /// The named backend, by explicit copies.
    Backend(String),
}

impl Source {
    fn parse(text: &str) -> Result<Source> {
        match text {
            "native" => Ok(Source::Native),
            "portable" => Ok(Source::Portable),
            "fallback" => Ok(Source::Fallback),
            other => match other.strip_prefix("backend:") {
                Some(name) if !name.is_empty() => Ok(Source::Backend(name.to_owned())),
                _ => Err(Error::invalid(format!("policy: '{other}' is no order token; use native, portable, fallback or backend:NAME"))),
            },
        }
    }
}

impl Source {
    /// The source of a token that was parsed before; anything else is a backend's name.
    pub(crate) fn from_token(token: &str) -> Source {
        Source::parse(token).unwrap_or_else(|_| Source::Backend(token.to_owned()))
    }
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Source::Native => f.write_str("native"),
            Source::Portable => f.write_str("portable"),
            Source::Fallback => f.write_str("fallback"),
            Source::Backend(name) => write!(f, "backend:{name}"),
        }
    }
}

/// A rule for some operators.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Operator name or glob; `softmax.*` also covers `softmax` and the operator's every overload.
    pub op: String,
    /// Element type of the first operand ("f16"); absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Device backend the rule is for; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Order for these operators; absent: the general one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<String>>,
    /// Fallback for these operators; absent: the general one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// The policy. Later files and the environment add to lists and replace single values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Refuse what no claim covers.
    pub strict: bool,
    /// What to do without an implementation.
    pub fallback: Fallback,
    /// General order of sources.
    pub order: Vec<String>,
    /// Preference between backends; higher first, default 0.
    pub priority: BTreeMap<String, i64>,
    /// Layers put around every device that is opened.
    pub layers: Vec<String>,
    /// Rules by operator; the last that fits wins.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// Implementations out of use, as `backend/operator` globs; taken at once, also while a job runs.
    pub revoked: Vec<String>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            strict: false,
            fallback: Fallback::Warn,
            order: ["native", "portable", "fallback"].map(String::from).to_vec(),
            priority: BTreeMap::new(),
            layers: Vec::new(),
            rules: Vec::new(),
            revoked: Vec::new(),
        }
    }
}

/// What the policy says about one operator on one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Sources to try, in order.
    pub order: Vec<Source>,
    /// Fallback mode.
    pub fallback: Fallback,
}

impl Policy {
    /// The policy of this process: default, then the file of FLAGOS_POLICY_FILE, then FLAGOS_POLICY, FLAGOS_STRICT, FLAGOS_FALLBACK, FLAGOS_LAYERS.
    pub fn from_environment() -> Result<Policy> {
        let mut policy = Policy::default();
        if let Some(path) = crate::env::var("FLAGOS_POLICY_FILE") {
            policy = policy.merge_file(Path::new(&path))?;
        }
        if let Some(text) = crate::env::var("FLAGOS_POLICY") {
            policy = policy.merge_text(&text, "FLAGOS_POLICY")?;
        }
        if let Some(text) = crate::env::var("FLAGOS_STRICT") {
            policy.strict = match text.as_str() {
                "1" | "true" => true,
                "0" | "false" | "" => false,
                other => return Err(Error::invalid(format!("FLAGOS_STRICT is '{other}'; use 0 or 1"))),
            };
        }
        if let Some(text) = crate::env::var("FLAGOS_FALLBACK") {
            policy = policy.merge_text(&format!("fallback = {text:?}"), "FLAGOS_FALLBACK")?;
        }
        if let Some(text) = crate::env::var("FLAGOS_LAYERS") {
            policy.layers.extend(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(String::from));
        }
        Ok(policy)
    }

    /// Merges a TOML file.
    pub fn merge_file(self, path: &Path) -> Result<Policy> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::invalid(format!("policy file {}: {e}", path.display())))?;
        self.merge_text(&text, &path.display().to_string())
    }

    /// Merges TOML text; lists and rules are appended (a general `order` replaces), single values replace. `origin` names it in errors.
    pub fn merge_text(mut self, text: &str, origin: &str) -> Result<Policy> {
        let at = |e: &dyn core::fmt::Display| Error::invalid(format!("policy {origin}: {}", e.to_string().trim().replace('\n', " ")));
        // In the environment one line is handier: semicolons outside of strings separate settings.
        let table: toml::Table = if origin.starts_with("FLAGOS_") { split_settings(text).join("\n").parse() } else { text.parse() }.map_err(|e| at(&e))?;
        let present = |key: &str| table.contains_key(key);
        let has: Vec<&str> = ["strict", "fallback", "order"].into_iter().filter(|k| present(k)).collect();
        let next: Policy = toml::Value::Table(table.clone()).try_into().map_err(|e: toml::de::Error| at(&e))?;
        if has.contains(&"strict") {
            self.strict = next.strict;
        }
        if has.contains(&"fallback") {
            self.fallback = next.fallback;
        }
        if has.contains(&"order") {
            self.order = next.order;
        }
        self.priority.extend(next.priority);
        self.layers.extend(next.layers);
        self.rules.extend(next.rules);
        self.revoked.extend(next.revoked);
        self.check().map_err(|e| Error::invalid(format!("policy {origin}: {}", e.message)))?;
        Ok(self)
    }

    /// Checks order tokens and that every operator pattern names something in the catalogue.
    pub fn check(&self) -> Result<()> {
        for token in self.order.iter().chain(self.rules.iter().flat_map(|r| r.order.iter().flatten())) {
            Source::parse(token)?;
        }
        for rule in &self.rules {
            if !flagos_catalog::operators().iter().any(|o| operator_fits(&rule.op, o)) {
                return Err(Error::invalid(format!("rule for op = '{}' fits no operator; see `flagos ops`", rule.op)));
            }
        }
        Ok(())
    }

    /// What holds for an operator, first-operand type and backend. BLAS routines and FFT kinds come as `blas.gemm`, `fft.c2c`.
    pub fn decide(&self, operator: &str, dtype: &str, backend: &str) -> Decision {
        let fits = |rule: &&Rule| {
            name_fits(&rule.op, operator)
                && rule.dtype.as_deref().is_none_or(|d| d == dtype)
                && rule.backend.as_deref().is_none_or(|b| glob(b, backend))
        };
        let order = self.rules.iter().rev().filter(fits).find_map(|r| r.order.as_ref()).unwrap_or(&self.order);
        let fallback = self.rules.iter().rev().filter(fits).find_map(|r| r.fallback).unwrap_or(self.fallback);
        Decision { order: order.iter().filter_map(|t| Source::parse(t).ok()).collect(), fallback }
    }

    /// Whether an implementation was revoked.
    pub fn is_revoked(&self, backend: &str, operator: &str) -> bool {
        self.revoked.iter().any(|r| glob(r, &format!("{backend}/{operator}")))
    }

    /// Digest of the whole policy, part of every plan's key.
    pub fn digest(&self) -> u64 {
        use core::hash::{BuildHasher, Hasher};
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(toml::to_string(self).unwrap_or_default().as_bytes());
        hasher.finish()
    }
}

/// Splits `a = 1; b = "x;y"` at semicolons outside of strings.
fn split_settings(text: &str) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for c in text.chars() {
        quoted ^= c == '"';
        match c {
            ';' if !quoted => parts.push(String::new()),
            c => parts.last_mut().into_iter().for_each(|p| p.push(c)),
        }
    }
    parts
}

/// `softmax.*` covers `softmax`; otherwise globs.
fn name_fits(pattern: &str, name: &str) -> bool {
    glob(pattern, name) || pattern.strip_suffix(".*").is_some_and(|stem| glob(stem, name))
}

fn operator_fits(pattern: &str, operator: &flagos_catalog::Operator) -> bool {
    name_fits(pattern, operator.name)
        || operator.aten.iter().any(|a| name_fits(pattern, a))
        || pattern.starts_with("blas.")
        || pattern.starts_with("fft.")
}

/// `*` and `?`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == '?' || p[i] == t[j]) {
            (i, j) = (i + 1, j + 1);
        } else if let Some((at, from)) = star {
            (i, j) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_adds_to_lists_and_replaces_values() {
        let policy = Policy::default().merge_text("layers = [\"trace\"]\nstrict = true", "file.toml").unwrap();
        let policy = policy.merge_text("layers = [\"validate\"]; fallback = \"forbid\"", "FLAGOS_POLICY").unwrap();
        assert_eq!(policy.layers, ["trace", "validate"]);
        assert!(policy.strict);
        assert_eq!(policy.fallback, Fallback::Forbid);
        assert_ne!(policy.digest(), Policy::default().digest());
    }

    #[test]
    fn a_family_rule_covers_the_bare_name_and_the_last_rule_wins() {
        let text = "[[rule]]\nop = \"softmax.*\"\norder = [\"portable\"]\n[[rule]]\nop = \"softmax\"\ndtype = \"f16\"\norder = [\"backend:cpu\"]";
        let policy = Policy::default().merge_text(text, "t").unwrap();
        assert_eq!(policy.decide("softmax", "f32", "x").order, [Source::Portable]);
        assert_eq!(policy.decide("softmax", "f16", "x").order, [Source::Backend("cpu".into())]);
        assert_eq!(policy.decide("log_softmax", "f16", "x").order.len(), 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("order = [\"fastest\"]", "fastest"),
            ("[[rule]]\nop = \"softmaxx\"", "softmaxx"),
            ("fallbck = \"warn\"", "fallbck"),
            ("fallback = \"maybe\"", "maybe"),
        ] {
            let error = Policy::default().merge_text(text, "p.toml").unwrap_err().message;
            assert!(error.contains(part) && error.contains("p.toml"), "{error}");
        }
    }

    #[test]
    fn globs() {
        assert!(glob("*", "") && glob("a*c?", "abbcd") && !glob("a?c", "ac") && glob("a*b*c", "aXbYbZc"));
    }
}
