//! Clients that write down what they asked and what they were told, as a [`history`].
//!
//! They speak plain HTTP: what a library would try again, or hide, is what is to be seen. The
//! objects are of a kind of their own, `marks.e2e.commonage.dev`, in a namespace of their own.

mod load;
mod watcher;

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::history::{self, Answer, Ask, Call, Record, Selector, Version, uid_in, version_of};

pub use load::{Load, Shape};
pub use watcher::Stream;

/// How long a request is waited for: longer than a server's own patience with its store.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(40);

/// One API server, by the address that its clients use.
#[derive(Clone)]
pub struct Server {
    pub name: String,
    client: kube::Client,
}

impl Server {
    /// The server at `url` (or where the kubeconfig says), with the kubeconfig's credentials.
    pub async fn connect(kubeconfig: &Path, url: Option<&str>) -> anyhow::Result<Server> {
        let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        if let Some(url) = url {
            config.cluster_url = url.parse()?;
        }
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = None;
        let name = config.cluster_url.to_string();
        Ok(Server { name, client: kube::Client::try_from(config)? })
    }

    /// Nobody in particular, who trusts whoever answers.
    pub fn anonymous(url: &str) -> anyhow::Result<Server> {
        let mut config = kube::Config::new(url.parse()?);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        Ok(Server { name: url.to_owned(), client: kube::Client::try_from(config)? })
    }

    /// The client, for what needs no recording.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Status and body, or why there is no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Value), String> {
        let answer = self.answer(method, path, body).await?;
        Ok((answer.status(), answer.into_body()))
    }

    /// The same with the answer's head. A body that is no JSON is text.
    pub async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<http::Response<Value>, String> {
        let ask = async {
            let (head, body) = self.open(method, path, body).await?.into_parts();
            let body = body.collect().await.map_err(|error| chain(&error))?.to_bytes();
            let text = || String::from_utf8_lossy(&body).into_owned().into();
            let body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
            Ok(http::Response::from_parts(head, body))
        };
        let late = |_| format!("no answer within {REQUEST_TIME_MAX:?}");
        tokio::time::timeout(REQUEST_TIME_MAX, ask).await.map_err(late)?
    }

    /// Returns when the head of the answer is there.
    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<http::Response<Body>, String> {
        let mut request = Request::builder().method(method).uri(path);
        let mut bytes = Vec::new();
        if let Some((content_type, value)) = body {
            request = request.header("content-type", content_type);
            bytes = value.to_string().into_bytes();
        }
        let request = request.body(Body::from(Bytes::from(bytes))).map_err(|e| e.to_string())?;
        self.client.send(request).await.map_err(|error| chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Collects the records of all clients under one clock.
pub struct Recorder {
    clock: Instant,
    namespace: String,
    records: Mutex<Vec<Record>>,
    clients: AtomicU32,
    marks: AtomicU64,
}

impl Recorder {
    /// Makes the kind and the namespace, and waits until every server serves them.
    pub async fn prepare(servers: &[Server], namespace: &str) -> anyhow::Result<Arc<Recorder>> {
        let first = servers.first().context("a recorder needs a server")?;
        let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let body = json!({"metadata": {"name": namespace}});
        for (path, body) in [(crds, definition()), ("/api/v1/namespaces", body)] {
            let answer = first.ask(Method::POST, path, Some(("application/json", &body))).await;
            let (status, body) = answer.map_err(anyhow::Error::msg)?;
            anyhow::ensure!(status.is_success() || status == 409, "{path}: {body}");
        }
        let recorder = Recorder {
            clock: Instant::now(),
            namespace: namespace.to_owned(),
            records: Mutex::default(),
            clients: AtomicU32::new(1),
            marks: AtomicU64::new(1),
        };
        for server in servers {
            let started = Instant::now();
            loop {
                match server.ask(Method::GET, &recorder.path(""), None).await {
                    Ok((StatusCode::OK, _)) => break,
                    last if started.elapsed() > crate::PATIENCE => {
                        anyhow::bail!("{} does not serve the kind: {last:?}", server.name)
                    }
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        Ok(Arc::new(recorder))
    }

    pub fn now_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The collection, or with `/name` behind it an object of it.
    pub fn path(&self, rest: &str) -> String {
        format!("/apis/e2e.commonage.dev/v1/namespaces/{}/marks{rest}", self.namespace)
    }

    fn mark(&self) -> String {
        format!("m{}", self.marks.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for one more client.
    pub fn client(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    pub fn add(&self, record: Record) {
        self.records.lock().expect("no recorder panics with the lock").push(record);
    }

    /// Everything recorded so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("no recorder panics with the lock").clone()
    }

    /// Makes one call, and writes it down. `how` makes it.
    async fn record<F>(&self, client: u32, server: &Server, ask: Ask, how: F) -> Answer
    where
        F: Future<Output = Answer>,
    {
        let began_us = self.now_us();
        let answer = how.await;
        let ended_us = self.now_us();
        let (server, told) = (server.name.clone(), answer.clone());
        self.add(Record::Call(Call { client, server, began_us, ended_us, ask, answer }));
        told
    }

    /// `color` and `group` of a new object are its selectable field and its label.
    pub async fn create(
        &self,
        client: u32,
        server: &Server,
        name: &str,
        (color, group): (&str, &str),
    ) -> Answer {
        let mark = self.mark();
        let body = body(name, None, &mark, color, group);
        let ask = Ask::Create { name: name.to_owned(), mark };
        let path = self.path("");
        let how = answer_of(server.ask(Method::POST, &path, Some((JSON, &body))));
        self.record(client, server, ask, how).await
    }

    pub async fn update(
        &self,
        client: u32,
        server: &Server,
        name: &str,
        at: Version,
        (color, group): (&str, &str),
    ) -> Answer {
        let mark = self.mark();
        let body = body(name, Some(at), &mark, color, group);
        let ask = Ask::Update { name: name.to_owned(), mark, at };
        let path = self.path(&format!("/{name}"));
        let how = answer_of(server.ask(Method::PUT, &path, Some((JSON, &body))));
        self.record(client, server, ask, how).await
    }

    pub async fn patch(
        &self,
        client: u32,
        server: &Server,
        name: &str,
        color: Option<&str>,
    ) -> Answer {
        let mark = self.mark();
        let mut body = json!({"spec": {"mark": mark}});
        if let Some(color) = color {
            body["spec"]["color"] = color.into();
        }
        let ask = Ask::Patch { name: name.to_owned(), mark, color: color.map(str::to_owned) };
        let path = self.path(&format!("/{name}"));
        let body = Some(("application/merge-patch+json", &body));
        let how = answer_of(server.ask(Method::PATCH, &path, body));
        self.record(client, server, ask, how).await
    }

    pub async fn delete(
        &self,
        client: u32,
        server: &Server,
        name: &str,
        uid: Option<&str>,
    ) -> Answer {
        let ask = Ask::Delete { name: name.to_owned(), uid: uid.map(str::to_owned) };
        let path = self.path(&format!("/{name}"));
        let mut body = json!({"propagationPolicy": "Background"});
        if let Some(uid) = uid {
            body["preconditions"] = json!({"uid": uid});
        }
        let how = async {
            match answer_of(server.ask(Method::DELETE, &path, Some((JSON, &body)))).await {
                Answer::Object(status) => Answer::Deleted { uid: uid_in(&status["details"]) },
                answer => answer,
            }
        };
        self.record(client, server, ask, how).await
    }

    pub async fn get(
        &self,
        client: u32,
        server: &Server,
        name: &str,
        at: Option<Version>,
    ) -> Answer {
        let ask = Ask::Get { name: name.to_owned(), at };
        let query = at.map_or(String::new(), |at| format!("?resourceVersion={at}"));
        let path = self.path(&format!("/{name}{query}"));
        self.record(client, server, ask, answer_of(server.ask(Method::GET, &path, None))).await
    }

    /// All pages of a list.
    pub async fn list(
        &self,
        client: u32,
        server: &Server,
        selector: &Selector,
        at: Option<Version>,
        (exact, limit): (bool, usize),
    ) -> Answer {
        let ask = Ask::List { selector: selector.clone(), at, exact };
        let mut query = format!("?limit={limit}{}", selector_query(selector));
        if let Some(at) = at {
            query += &format!("&resourceVersion={at}");
            query += if exact {
                "&resourceVersionMatch=Exact"
            } else {
                "&resourceVersionMatch=NotOlderThan"
            };
        }
        let how = self.pages(server, query, limit, selector);
        self.record(client, server, ask, how).await
    }

    async fn pages(
        &self,
        server: &Server,
        mut query: String,
        limit: usize,
        selector: &Selector,
    ) -> Answer {
        let mut found: Vec<Value> = Vec::new();
        let mut first = None;
        loop {
            let path = self.path(&query);
            let mut page = match server.ask(Method::GET, &path, None).await {
                Ok((StatusCode::OK, page)) => page,
                Ok((status, body)) => return refused(status, &body),
                Err(why) => return Answer::Unknown { why },
            };
            let version = version_of(&page);
            // A snapshot is one moment, whatever the number of its pages.
            if *first.get_or_insert(version) != version {
                return refused(StatusCode::CONFLICT, &json!({"reason": "pages of two versions"}));
            }
            if let Some(items) = page["items"].as_array_mut() {
                found.extend(items.drain(..).map(plain));
            }
            match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => {
                    query = format!("?limit={limit}&continue={token}{}", selector_query(selector));
                }
                None => return Answer::List { version, items: found },
            }
        }
    }

    /// Fails with all violations, and keeps the history in a file.
    #[track_caller]
    pub fn verify(&self, what: &str) {
        let records = self.records();
        let found = history::check(&records);
        let calls = records.iter().filter(|record| matches!(record, Record::Call(_))).count();
        eprintln!("{what}: {calls} calls, {} watches", records.len() - calls);
        if found.is_empty() && std::env::var_os("CMN_KEEP_HISTORY").is_none() {
            return;
        }
        let path =
            std::env::temp_dir().join(format!("history-{what}-{}.jsonl", std::process::id()));
        let kept = std::fs::File::create(&path)
            .map_err(anyhow::Error::from)
            .and_then(|file| history::write(&records, &mut std::io::BufWriter::new(file)));
        let shown: Vec<String> =
            found.iter().take(10).map(|violation| format!("{violation}")).collect();
        assert!(
            found.is_empty(),
            "{what}: {} violations, the history is in {} ({kept:?}):\n{}",
            found.len(),
            path.display(),
            shown.join("\n")
        );
    }
}

const JSON: &str = "application/json";

async fn answer_of(answer: impl Future<Output = Result<(StatusCode, Value), String>>) -> Answer {
    match answer.await {
        Ok((status, body)) if status.is_success() => Answer::Object(plain(body)),
        // The server itself does not know.
        Ok((status, body)) if status == 504 || status == 500 => {
            Answer::Unknown { why: format!("{status} {}", body["message"]) }
        }
        Ok((status, body)) => refused(status, &body),
        Err(why) => Answer::Unknown { why },
    }
}

fn refused(status: StatusCode, body: &Value) -> Answer {
    let reason = format!("{}: {}", body["reason"], body["message"]);
    Answer::Refused { code: status.as_u16(), reason }
}

/// Who wrote which field when is not part of the history: it is most of the bytes.
fn plain(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn selector_query(selector: &Selector) -> String {
    let label = selector.label.iter().map(|(key, value)| format!("&labelSelector={key}%3D{value}"));
    let field = selector.field.iter().map(|(key, value)| format!("&fieldSelector={key}%3D{value}"));
    label.chain(field).collect()
}

fn body(name: &str, at: Option<Version>, mark: &str, color: &str, group: &str) -> Value {
    let mut body = json!({
        "apiVersion": "e2e.commonage.dev/v1",
        "kind": "Mark",
        "metadata": {"name": name, "labels": {"group": group}},
        "spec": {"mark": mark, "color": color},
    });
    if let Some(at) = at {
        body["metadata"]["resourceVersion"] = at.to_string().into();
    }
    body
}

fn definition() -> Value {
    let string = json!({"type": "string"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "marks.e2e.commonage.dev"},
        "spec": {
            "group": "e2e.commonage.dev",
            "scope": "Namespaced",
            "names": {"plural": "marks", "singular": "mark", "kind": "Mark", "listKind": "MarkList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"mark": string, "color": string}},
                }}},
            }],
        },
    })
}
