//! What one rule permits, and whether rules contain others.
//!
//! After `pkg/apis/rbac/v1/evaluation_helpers.go` and `k8s.io/component-helpers/auth/rbac/validation`.

use serde_json::{Value, json};

use super::Attempt;

/// A rule of a role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl Rule {
    /// The rules in a `rules` field.
    pub(crate) fn list(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::parse).collect()
    }

    fn parse(rule: &Value) -> Self {
        let strings = |field: &str| {
            let list = rule[field].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: strings("verbs"),
            groups: strings("apiGroups"),
            resources: strings("resources"),
            names: strings("resourceNames"),
            paths: strings("nonResourceURLs"),
        }
    }

    /// As in a role.
    pub(crate) fn to_value(&self) -> Value {
        let mut rule = json!({ "verbs": self.verbs });
        let fields = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ];
        for (field, list) in fields {
            if !list.is_empty() {
                rule[field] = json!(list);
            }
        }
        rule
    }

    /// Whether it permits something.
    pub(crate) fn permits(&self, attempt: Attempt<'_>) -> bool {
        match attempt {
            Attempt::Path { verb, path } => has(&self.verbs, verb) && self.paths.iter().any(|own| is_path(own, path)),
            Attempt::Resource { verb, group, resource, subresource, name, .. } => {
                has(&self.verbs, verb)
                    && has(&self.groups, group)
                    && self.has_resource(resource, subresource)
                    && (self.names.is_empty() || self.names.iter().any(|own| own == name))
            }
        }
    }

    /// `pods/log` permits that subresource, `*/scale` that of all resources.
    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            own == "*"
                || match own.split_once('/') {
                    None => subresource.is_empty() && own == resource,
                    Some((parent, sub)) => {
                        !subresource.is_empty() && sub == subresource && (parent == "*" || parent == resource)
                    }
                }
        })
    }

    /// Cut into rules of one verb, one group, one resource, at most one name, or one verb and one path.
    fn breakdown(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                parts.push(Self { verbs: one(verb), paths: one(path), ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let part =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        parts.push(part);
                    } else {
                        parts.extend(self.names.iter().map(|name| Self { names: one(name), ..part.clone() }));
                    }
                }
            }
        }
        parts
    }

    /// Whether it contains a part as [`Self::breakdown`] makes them.
    fn covers(&self, part: &Self) -> bool {
        let all = |own: &[String], wanted: &[String]| wanted.iter().all(|word| has(own, word));
        let resources = part.resources.iter().all(|resource| match resource.split_once('/') {
            Some((parent, sub)) => self.has_resource(parent, sub),
            None => self.has_resource(resource, ""),
        });
        let names = self.names.is_empty()
            || (!part.names.is_empty() && part.names.iter().all(|name| self.names.contains(name)));
        let paths = part.paths.iter().all(|path| self.paths.iter().any(|own| is_path(own, path)));
        all(&self.verbs, &part.verbs) && all(&self.groups, &part.groups) && resources && names && paths
    }
}

/// Parts of the rules `wanted` that the rules `owned` do not contain.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::breakdown);
    parts.filter(|part| !owned.iter().any(|rule| rule.covers(part))).collect()
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == "*" || own == word)
}

/// A path, or everything that begins with what stands before a final `*`.
fn is_path(own: &str, path: &str) -> bool {
    own == "*" || own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}
