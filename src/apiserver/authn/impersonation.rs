//! Impersonation: a user who may acts as another, by headers (`kubectl --as`).
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/filters/impersonation`. Every part of the other identity must be allowed by the
//! verb `impersonate` on its own: the user or service account, each group, the uid, each value of each extra field.
//! [`Wish`] only reads; nothing changes before all of it is allowed.

use std::collections::BTreeMap;

use api::status::ApiError;
use api::user::{AUTHENTICATED, UserInfo};
use http::HeaderMap;

use crate::authz;
use crate::query::{Query, decode};
use crate::request::{RequestInfo, ResourceRequest};
use crate::server::ApiServer;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ACCOUNT: &str = "system:serviceaccount:";

/// Whom a request wants to act as.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wish {
    /// Reads the headers; none if there are no such ones.
    fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let text = |value: &http::HeaderValue| {
            let text = value.to_str().map_err(|_| ApiError::bad_request("an impersonation header is no text"));
            text.map(str::to_owned)
        };
        let first = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
        let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            // Keys come in any case and percent-encoded, as header names may hold few characters.
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                extra.entry(decode(key, false).to_lowercase()).or_default().push(text(value)?);
            }
        }
        let wish = Self { user: first(USER)?, uid: first(UID)?, groups, extra };
        let Self { user, uid, groups, extra } = &wish;
        match (user.is_empty(), uid.is_empty() && groups.is_empty() && extra.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err(ApiError::internal("requested a uid, groups or extra without impersonating a user")),
            (false, _) => Ok(Some(wish)),
        }
    }

    /// What must be allowed, each as its own request.
    fn requests(&self) -> Vec<ResourceRequest> {
        const OWN: &str = "authentication.k8s.io";
        let request = |group: &str, resource: &str, name: &str| ResourceRequest {
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..ResourceRequest::default()
        };
        let who = match account(&self.user) {
            Some((namespace, name)) => {
                ResourceRequest { namespace: namespace.to_owned(), ..request("", "serviceaccounts", name) }
            }
            None => request("", "users", &self.user),
        };
        let mut all = vec![who];
        all.extend(self.groups.iter().map(|group| request("", "groups", group)));
        all.extend(self.extra.iter().flat_map(|(key, values)| {
            let of_key =
                |value: &String| ResourceRequest { subresource: key.clone(), ..request(OWN, "userextras", value) };
            values.iter().map(of_key)
        }));
        if !self.uid.is_empty() {
            all.push(request(OWN, "uids", &self.uid));
        }
        all
    }

    /// The identity, completed by the groups that everybody of its kind has.
    fn into_user(self) -> UserInfo {
        let Self { user, uid, mut groups, extra } = self;
        if let Some((namespace, _)) = account(&user).filter(|_| groups.is_empty()) {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let settled = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
        if !groups.iter().any(settled) {
            groups.push(if user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
        }
        UserInfo { username: user, uid, groups, extra }
    }
}

/// Namespace and name, if a user is a service account.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    let good = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    good.then_some((namespace, name))
}

impl ApiServer {
    /// The user as whom a request is to be answered. The headers that say so are taken away.
    pub(crate) async fn acting(&self, user: UserInfo, headers: &mut HeaderMap) -> Result<UserInfo, ApiError> {
        let Some(wish) = Wish::read(headers)? else { return Ok(user) };
        for request in wish.requests() {
            let info = RequestInfo::Resource(request);
            let access = self.access(&user, &info, &Query::default()).await?;
            if !access.allowed {
                return Err(authz::forbidden(&user, &info, &access.reason));
            }
        }
        let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
        own.iter().for_each(|name| drop(headers.remove(name)));
        let other = wish.into_user();
        tracing::debug!(user = user.username, acting_as = other.username, "impersonation");
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn read(list: &[(&'static str, &'static str)]) -> Result<Option<Wish>, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Wish::read(&headers)
    }

    fn groups(list: &[(&'static str, &'static str)]) -> Vec<String> {
        read(list).unwrap().unwrap().into_user().groups
    }

    #[test]
    fn groups_are_completed_by_those_that_follow_from_the_user() {
        assert_eq!(groups(&[(USER, "jane")]), ["system:authenticated"]);
        assert_eq!(groups(&[(USER, "jane"), (GROUP, "dev")]), ["dev", "system:authenticated"]);
        assert_eq!(groups(&[(USER, "system:anonymous")]), ["system:unauthenticated"]);
        assert_eq!(groups(&[(USER, "jane"), (GROUP, "system:unauthenticated")]), ["system:unauthenticated"]);
        let account = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
        assert_eq!(groups(&[(USER, "system:serviceaccount:a:b")]), account);
    }

    #[test]
    fn every_part_is_asked_for_by_itself() {
        let wish = read(&[
            (USER, "system:serviceaccount:a:b"),
            (UID, "7"),
            (GROUP, "dev"),
            ("impersonate-extra-example.com%2fscope", "x"),
            ("impersonate-extra-example.com%2fscope", "y"),
        ]);
        let asked: Vec<String> = wish
            .unwrap()
            .unwrap()
            .requests()
            .iter()
            .map(|r| format!("{}/{}/{} {} {}", r.group, r.resource, r.subresource, r.namespace, r.name))
            .collect();
        let own = "authentication.k8s.io";
        assert_eq!(
            asked,
            [
                "/serviceaccounts/ a b".to_owned(),
                "/groups/  dev".to_owned(),
                format!("{own}/userextras/example.com/scope  x"),
                format!("{own}/userextras/example.com/scope  y"),
                format!("{own}/uids/  7"),
            ]
        );
    }

    #[test]
    fn nobody_acts_as_groups_alone() {
        assert_eq!(read(&[]).unwrap(), None);
        for header in [GROUP, UID, "impersonate-extra-a"] {
            assert_eq!(read(&[(header, "x")]).unwrap_err().code, 500);
        }
    }
}
