//! What a method and a path ask for, as Kubernetes' own RequestInfo reads them.

use http::Method;
use percent_encoding::percent_decode_str;

use super::query::Query;
use crate::selector::FieldSelector;

/// Names are empty where the request has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestInfo {
    pub(super) verb: &'static str,
    /// Under `/api/VERSION/` or `/apis/GROUP/VERSION/`; else only `path` says anything.
    pub(super) is_resource: bool,
    /// Of a resource.
    pub(super) is_head: bool,
    /// As it was sent, but decoded.
    pub(super) path: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// The path goes on after the subresource, which says nothing about what is asked for.
    pub(super) has_more: bool,
}

impl RequestInfo {
    pub(super) fn new(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let path = percent_decode_str(path).decode_utf8_lossy();
        // Slashes around do not count. Those inside do: between two of them is an empty name.
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut info = RequestInfo {
            verb: lower_case(method),
            path: path.clone().into_owned(),
            ..RequestInfo::default()
        };
        let rest = match segments[..] {
            ["api", version, _, ..] => {
                info.version = version.to_owned();
                &segments[2..]
            }
            ["apis", group, version, _, ..] => {
                info.group = group.to_owned();
                info.version = version.to_owned();
                &segments[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD => "get",
            _ => "",
        };
        info.is_head = *method == Method::HEAD;
        info.locate(rest);
        info.settle_verb(query);
        info
    }

    /// Whether the path begins as those that are served: with one slash, and with a group where
    /// there should be one.
    pub(super) fn is_served_place(&self) -> bool {
        match self.path.strip_prefix("/apis/") {
            Some(_) => !self.group.is_empty(),
            None => self.path.starts_with("/api/"),
        }
    }

    /// The name that the old `/watch/` prefix has in its path, not in a selector.
    pub(super) fn watched_name(&self) -> Option<&str> {
        let named = self.verb == "watch"
            && self
                .path
                .trim_end_matches('/')
                .ends_with(&format!("/{}/{}", self.resource, self.name));
        named.then_some(self.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Reads namespace, resource, name and subresource.
    fn locate(&mut self, segments: &[&str]) {
        let mut rest = segments;
        // The prefix of old clients: `/api/v1/watch/…`.
        if rest.len() > 1 && rest[0] == "watch" {
            self.verb = "watch";
            rest = &rest[1..];
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            self.namespace = rest[1].to_owned();
            let about_namespace = rest.len() == 2 || matches!(rest[2], "status" | "finalize");
            if !about_namespace {
                rest = &rest[2..];
            }
        }
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        (self.resource, self.name, self.subresource) = (part(0), part(1), part(2));
        self.has_more = rest.len() > 3;
    }

    fn settle_verb(&mut self, query: &Query) {
        if !self.name.is_empty() {
            return;
        }
        if self.verb == "get" {
            self.verb = match query.flag("watch") {
                Some(true) => "watch",
                _ => "list",
            };
        } else if self.verb == "delete" {
            self.verb = "deletecollection";
        }
        // A collection narrowed to one name is about that name, for whoever judges it.
        if matches!(self.verb, "list" | "watch" | "deletecollection")
            && let Some(selector) = query.filled("fieldSelector")
            && let Ok(selector) = FieldSelector::parse(selector)
            && let Some(name) = selector.exact("metadata.name")
            && !matches!(name, "." | "..")
            && !name.contains(['/', '%'])
        {
            self.name = name.to_owned();
        }
    }

    /// Changes nothing: counted apart from writes when too many requests are in flight.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch" | "head")
    }

    /// May last for hours: no deadline, no place among the requests in flight.
    pub(super) fn is_long_running(&self) -> bool {
        let streams = matches!(&*self.subresource, "log" | "exec" | "attach" | "portforward");
        self.verb == "watch" || (self.is_resource && streams)
    }
}

fn lower_case(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, uri: &str) -> [String; 7] {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::new(&method, path, &Query::parse(Some(query)));
        [
            info.verb.to_owned(),
            info.group,
            info.version,
            info.namespace,
            info.resource,
            info.name,
            info.subresource,
        ]
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let t = "/apis/commonage.dev/v1/namespaces/default/tasks";
        for (method, uri, expected) in [
            (Method::GET, t.to_owned(), "list commonage.dev v1 default tasks  "),
            (Method::GET, format!("{t}?watch=1"), "watch commonage.dev v1 default tasks  "),
            (Method::GET, format!("{t}/a"), "get commonage.dev v1 default tasks a "),
            (
                Method::GET,
                format!("{t}?&watch=true&fieldSelector=metadata.name%3Da"),
                "watch commonage.dev v1 default tasks a ",
            ),
            (
                Method::GET,
                format!("{t}?fieldSelector=metadata.namespace%3Dx,metadata.name%3D%3Da"),
                "list commonage.dev v1 default tasks a ",
            ),
            (
                Method::GET,
                format!("{t}?fieldSelector=metadata.name%21%3Da"),
                "list commonage.dev v1 default tasks  ",
            ),
            (Method::HEAD, format!("{t}/a"), "get commonage.dev v1 default tasks a "),
            (Method::GET, format!("{t}?watch=maybe"), "watch commonage.dev v1 default tasks  "),
            (Method::GET, format!("{t}?watch=False"), "list commonage.dev v1 default tasks  "),
            (
                Method::PUT,
                format!("{t}/a/status"),
                "update commonage.dev v1 default tasks a status",
            ),
            (Method::DELETE, t.to_owned(), "deletecollection commonage.dev v1 default tasks  "),
            (Method::DELETE, format!("{t}/a"), "delete commonage.dev v1 default tasks a "),
            (Method::POST, format!("{t}/"), "create commonage.dev v1 default tasks  "),
            (Method::GET, "/api/v1/namespaces".into(), "list  v1  namespaces  "),
            (Method::GET, "/api/v1/namespaces/x".into(), "get  v1 x namespaces x "),
            (
                Method::PUT,
                "/api/v1/namespaces/x/finalize".into(),
                "update  v1 x namespaces x finalize",
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/x/configmaps/c".into(),
                "patch  v1 x configmaps c ",
            ),
            (
                Method::GET,
                "/apis/commonage.dev/v1/watch/namespaces/d/tasks".into(),
                "watch commonage.dev v1 d tasks  ",
            ),
            (
                Method::GET,
                "/apis/commonage.dev/v1/agents".into(),
                "list commonage.dev v1  agents  ",
            ),
        ] {
            assert_eq!(read(method, &uri).join(" "), expected, "{uri}");
        }
    }

    #[test]
    fn the_rest_is_no_resource() {
        for path in ["/", "/api", "/apis/commonage.dev/v1/", "/version/", "/api/v1"] {
            let info = RequestInfo::new(&Method::GET, path, &Query::default());
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.path, path);
        }
    }

    #[test]
    fn slashes_are_counted_as_kubernetes_counts_them() {
        for (uri, expected) in [
            ("/api/v1/namespaces/x/configmaps/c/", "get  v1 x configmaps c "),
            ("//api/v1/namespaces/x/configmaps/c", "get  v1 x configmaps c "),
            ("/api/v1/namespaces/x/configmaps//c", "list  v1 x configmaps  c"),
            ("/api/v1/namespaces//configmaps", "list  v1  configmaps  "),
            ("/api//v1/namespaces", "get    v1 namespaces "),
            ("/api/v1/namespaces/x/configmaps/a%2Fb", "get  v1 x configmaps a b"),
            ("/api/v1/nodes/n/proxy/a/b", "get  v1  nodes n proxy"),
        ] {
            assert_eq!(read(Method::GET, uri).join(" "), expected, "{uri}");
        }
        let served =
            |path| RequestInfo::new(&Method::GET, path, &Query::default()).is_served_place();
        assert!(served("/api/v1/nodes") && served("/apis/a.b/v1/things/"));
        assert!(!served("//api/v1/nodes") && !served("/apis//v1/nodes"));
    }
}
