//! Which resources the server has, and the paths of their objects: learned from the server, so that
//! kinds added later work without a new `cmn`.

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResource, APIResourceList};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::errors::{Failure, Result};

/// The group that is searched first, and in nearly every case last.
const OWN_GROUP_VERSION: &str = "commonage.dev/v1";

/// One kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    short_names: Vec<String>,
    verbs: Vec<String>,
}

impl Kind {
    pub(crate) fn new(group_version: &str, resource: APIResource) -> Self {
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        let singular = match resource.singular_name.is_empty() {
            true => resource.kind.to_lowercase(),
            false => resource.singular_name,
        };
        Self {
            group: resource.group.unwrap_or_else(|| group.to_owned()),
            version: resource.version.unwrap_or_else(|| version.to_owned()),
            plural: resource.name,
            singular,
            kind: resource.kind,
            namespaced: resource.namespaced,
            short_names: resource.short_names.unwrap_or_default(),
            verbs: resource.verbs,
        }
    }

    /// `commonage.dev/v1`, or `v1` for the core group.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `task.commonage.dev`, as kubectl names kinds in its messages; `namespace` for the core group.
    pub(crate) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.singular.clone(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// The path of the collection; over all namespaces without one.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let namespace = match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/namespaces/{}", encode(namespace)),
            None => String::new(),
        };
        format!("{root}/{}{namespace}/{}", self.api_version(), self.plural)
    }

    pub(crate) fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.path(Some(namespace)), encode(name))
    }

    /// A client of this kind's objects in one namespace.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        };
        match self.namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &resource),
            false => Api::all_with(client.clone(), &resource),
        }
    }

    fn answers_to(&self, word: &str) -> bool {
        let (word, group) =
            word.split_once('.').map_or((word, None), |(word, group)| (word, Some(group)));
        let named = self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short_names.iter().any(|short| short == word);
        // A group may be shortened from its end, as with kubectl: `tasks.commonage`.
        named
            && group
                .is_none_or(|group| format!("{}.", self.group).starts_with(&format!("{group}.")))
    }

    fn is_listable(&self) -> bool {
        !self.plural.contains('/') && self.verbs.iter().any(|verb| verb == "list")
    }
}

/// The kinds of one server, fetched as far as needed.
pub(crate) struct Kinds<'a> {
    client: &'a Client,
    known: Vec<Kind>,
    complete: bool,
}

impl<'a> Kinds<'a> {
    pub(crate) fn of(client: &'a Client) -> Self {
        Self { client, known: Vec::new(), complete: false }
    }

    /// The kinds of the group that is searched first.
    pub(crate) async fn own(&mut self) -> Result<Vec<String>> {
        self.fetch(OWN_GROUP_VERSION).await?;
        let listable = self.known.iter().filter(|kind| kind.is_listable());
        Ok(listable.map(|kind| kind.plural.clone()).collect())
    }

    /// The kind that a user means by `task`, `tasks`, `tk`, `Task` or `tasks.commonage.dev`.
    pub(crate) async fn find(&mut self, word: &str) -> Result<Kind> {
        let word = word.to_lowercase();
        self.fetch_until(|kind| kind.is_listable() && kind.answers_to(&word)).await?.ok_or_else(
            || {
                let names: Vec<&str> = self
                    .known
                    .iter()
                    .filter(|k| k.is_listable())
                    .map(|k| k.plural.as_str())
                    .collect();
                let own = self.known.iter().filter(|k| k.api_version() == OWN_GROUP_VERSION);
                let own: Vec<&str> =
                    own.filter(|k| k.is_listable()).map(|k| k.plural.as_str()).collect();
                let hint = match closest(&word, &names) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!(
                        "a kind comes first: {}, and others (`kubectl api-resources`)",
                        own.join(", ")
                    ),
                };
                Failure::new(format!("the server has no kind \"{word}\"")).hint(hint)
            },
        )
    }

    /// The kind of an object that names its own type.
    pub(crate) async fn of_object(&mut self, api_version: &str, kind: &str) -> Result<Kind> {
        let wanted = |k: &Kind| k.is_listable() && k.kind == kind && k.api_version() == api_version;
        self.fetch_until(wanted).await?.ok_or_else(|| {
            Failure::new(format!("the server has no kind {kind} in {api_version}")).hint(format!(
                "objects of this cluster begin with `apiVersion: {OWN_GROUP_VERSION}`"
            ))
        })
    }

    async fn fetch_until(&mut self, wanted: impl Fn(&Kind) -> bool) -> Result<Option<Kind>> {
        if self.known.is_empty() {
            self.fetch(OWN_GROUP_VERSION).await?;
        }
        if let Some(kind) = self.known.iter().find(|kind| wanted(kind)) {
            return Ok(Some(kind.clone()));
        }
        if !self.complete {
            self.complete = true;
            self.fetch("v1").await?;
            let groups: APIGroupList =
                get(self.client, "/apis", "cannot ask the server for its kinds").await?;
            for group in groups.groups {
                for version in group.versions.iter().map(|v| v.group_version.as_str()) {
                    if version != OWN_GROUP_VERSION {
                        self.fetch(version).await?;
                    }
                }
            }
        }
        Ok(self.known.iter().find(|kind| wanted(kind)).cloned())
    }

    async fn fetch(&mut self, group_version: &str) -> Result<()> {
        let root = if group_version.contains('/') { "/apis" } else { "/api" };
        let path = format!("{root}/{group_version}");
        let list: Result<APIResourceList, _> =
            self.client.request(request("GET", &path, Vec::new())).await;
        match list {
            Ok(list) => {
                self.known.extend(list.resources.into_iter().map(|r| Kind::new(group_version, r)))
            }
            // Another kind of server, or a group whose own server is away: no reason to know nothing.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 503 => {}
            Err(error) => return Err(Failure::api("cannot ask the server for its kinds", &error)),
        }
        Ok(())
    }
}

/// A request of a path and query that this module made.
pub(crate) fn request(method: &str, path_and_query: &str, body: Vec<u8>) -> Request<Vec<u8>> {
    Request::builder()
        .method(method)
        .uri(path_and_query)
        .header("Accept", "application/json")
        .header("Content-Type", "application/json")
        .body(body)
        .expect("names are percent-encoded, so the path is a valid URI")
}

pub(crate) async fn get<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    tried: &str,
) -> Result<T> {
    client
        .request(request("GET", path, Vec::new()))
        .await
        .map_err(|error| Failure::api(tried, &error))
}

/// One object, or nothing where there is none.
pub(crate) async fn get_opt(client: &Client, path: &str, tried: &str) -> Result<Option<Value>> {
    match client.request::<Value>(request("GET", path, Vec::new())).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Failure::api(tried, &error)),
    }
}

/// Percent-encodes what is not unreserved in a path segment or a query value.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The one of `names` that is a typing mistake away, or two if it is long.
pub(crate) fn closest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    const LETTERS_PER_MISTAKE: usize = 3;
    let most = (word.chars().count() / LETTERS_PER_MISTAKE).clamp(1, 2);
    names
        .iter()
        .map(|name| (mistakes(word, name), *name))
        .min()
        .filter(|(mistakes, _)| *mistakes <= most)
        .map(|(_, name)| name)
}

/// How many letters were mistyped, left out, typed too much, or swapped with the next (optimal string alignment).
fn mistakes(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let typed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                typed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Kind {
        let resource = APIResource {
            name: "tasks".into(),
            singular_name: "task".into(),
            namespaced: true,
            kind: "Task".into(),
            short_names: Some(vec!["tk".into()]),
            verbs: vec!["list".into()],
            ..Default::default()
        };
        Kind::new(OWN_GROUP_VERSION, resource)
    }

    #[test]
    fn a_kind_answers_to_all_its_names() {
        for word in ["task", "tasks", "tk", "tasks.commonage.dev", "tk.commonage"] {
            assert!(task().answers_to(word), "{word}");
        }
        for word in ["tas", "tasks.other.dev", "t"] {
            assert!(!task().answers_to(word), "{word}");
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let task = task();
        assert_eq!(task.path(None), "/apis/commonage.dev/v1/tasks");
        assert_eq!(
            task.object_path("a b", "x/y"),
            "/apis/commonage.dev/v1/namespaces/a%20b/tasks/x%2Fy"
        );
        assert_eq!(task.qualified(), "task.commonage.dev");
    }

    #[test]
    fn a_typing_mistake_is_understood() {
        assert_eq!(closest("taks", &["tasks", "queues"]), Some("tasks"));
        assert_eq!(closest("nodes", &["tasks", "queues"]), None);
        assert_eq!(closest("rnu", &["run", "up", "cp"]), Some("run"));
        assert_eq!(closest("foos", &["pods", "tasks"]), None, "two of four are no mistake");
    }
}
