//! Sends the requests of a subject and collects what differs.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::compare::{Strictness, differences, text_matches};
use crate::suite::{self, Case, Expect, Step, Subject, Variables, filled, filled_tree};

/// For an answer or an event that should come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what should come about by itself.
const GLANCE: Duration = Duration::from_millis(50);
const CASES_AT_ONCE: usize = 16;
/// For one step: longer than [`PATIENCE`], which says better what was missing.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Runner {
    admin: Client,
    anonymous: Client,
    /// Cases whose names do not contain it are left out.
    only: String,
    /// Tells the namespaces of this run from those of others on the same server.
    run: String,
}

pub(crate) struct Outcome {
    pub(crate) subject: String,
    pub(crate) passed: usize,
    pub(crate) differences: Vec<String>,
    pub(crate) pending: Vec<String>,
    pub(crate) skipped: Option<String>,
}

/// An answer that goes on.
struct Stream {
    body: Body,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Runner {
    pub(crate) async fn new(kubeconfig: &Path, only: String) -> Runner {
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(file, &options).await.unwrap();
        // Refusals are what is looked at.
        config.default_retry = false;
        let mut nobody = config.clone();
        nobody.auth_info = AuthInfo::default();
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Runner {
            admin: Client::try_from(config).unwrap(),
            anonymous: Client::try_from(nobody).unwrap(),
            only,
            run: format!("{:x}", started.as_millis()),
        }
    }

    pub(crate) async fn subject(&self, subject: &Subject) -> Outcome {
        let mut outcome = Outcome {
            subject: subject.name.clone(),
            passed: 0,
            differences: Vec::new(),
            pending: Vec::new(),
            skipped: self.install(&subject.definitions).await.err(),
        };
        let once = [Variables::new()];
        let sets = if subject.each.is_empty() { &once[..] } else { &subject.each };
        let sets: Vec<&Variables> = sets
            .iter()
            .filter(|set| {
                let custom = set.contains_key("definition") || subject.each.is_empty();
                outcome.skipped.is_none() || !custom
            })
            .collect();
        let mut runs = Vec::new();
        for (number, case) in subject.cases.iter().enumerate() {
            let chosen = sets.iter().enumerate().filter(|(_, set)| {
                case.only.iter().all(|(name, value)| set.get(name) == Some(value))
            });
            for (at, set) in chosen {
                let kind = set.get("kind").map_or(String::new(), |kind| format!(" ({kind})"));
                let title = format!("{}: {}{kind}", subject.name, case.name);
                if !title.contains(&self.only) {
                    continue;
                }
                let mut variables = Variables::clone(set);
                let namespace = format!("c-{}-{}-{number}-{at}", self.run, subject.name);
                let own = Variables::from([("ns".to_owned(), namespace)]);
                variables.values_mut().for_each(|value| *value = filled(value, &own));
                variables.extend(own);
                let pending = case.pending.as_deref();
                runs.push(
                    async move { (title, pending, self.case(subject, case, variables).await) },
                );
            }
        }
        // They share nothing but the server, and some wait for seconds.
        let mut runs = futures::stream::iter(runs).buffered(CASES_AT_ONCE);
        while let Some((title, pending, result)) = runs.next().await {
            match (result, pending) {
                (Ok(()), None) => outcome.passed += 1,
                (Ok(()), Some(_)) => {
                    outcome.differences.push(format!("{title}\n  holds: it is pending no more"));
                }
                (Err(_), Some(why)) => outcome.pending.push(format!("{title}: {why}")),
                (Err(why), None) => outcome.differences.push(format!("{title}\n{why}")),
            }
        }
        outcome
    }

    /// `Err`: the server cannot have them.
    async fn install(&self, definitions: &[String]) -> Result<(), String> {
        const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for file in definitions {
            let definition = suite::definition(file);
            let made = self.must("POST", PATH, Some(&definition)).await;
            if !matches!(made.status, 201 | 409) {
                let text = String::from_utf8_lossy(&made.body).into_owned();
                return Err(format!("its kinds cannot be installed: {} {text}", made.status));
            }
            let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap();
            let since = Instant::now();
            while !self.is_established(&format!("{PATH}/{name}")).await {
                assert!(since.elapsed() < PATIENCE, "{name} is not established");
                tokio::time::sleep(GLANCE).await;
            }
        }
        Ok(())
    }

    async fn is_established(&self, path: &str) -> bool {
        let answer = self.must("GET", path, None).await;
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let conditions = found.pointer("/status/conditions").and_then(Value::as_array);
        conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
        })
    }

    async fn case(
        &self,
        subject: &Subject,
        case: &Case,
        mut variables: Variables,
    ) -> Result<(), String> {
        let namespace = variables["ns"].clone();
        let body = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
        });
        let made = self.must("POST", "/api/v1/namespaces", Some(&body)).await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        let mut streams = HashMap::new();
        let before: &[Step] = if case.bare { &[] } else { &subject.before };
        let mut result = Ok(());
        for (number, step) in before.iter().chain(&case.steps).enumerate() {
            let run = self.step(step, &mut variables, &mut streams);
            let done = tokio::time::timeout(ENDS_WITHIN, run).await;
            let done = done.unwrap_or_else(|_| Err(vec!["took too long".to_owned()]));
            if let Err(lines) = done {
                let asked = step.request.as_deref().or(step.read.as_deref()).unwrap_or_default();
                let asked = filled(asked, &variables);
                let at = format!("  step {}: {asked}", number + 1 - before.len().min(number + 1));
                result = Err(format!("{at}\n    {}", lines.join("\n    ")));
                break;
            }
        }
        self.must("DELETE", &format!("/api/v1/namespaces/{namespace}"), None).await;
        result
    }

    async fn step(
        &self,
        step: &Step,
        variables: &mut Variables,
        streams: &mut HashMap<String, Stream>,
    ) -> Result<(), Vec<String>> {
        if let Some(name) = &step.read {
            let stream = streams.get_mut(name).expect("an earlier step opens it");
            return stream.compare(step, variables).await;
        }
        if let Some(name) = &step.open {
            let (head, body) = self.send(step, variables).await.into_parts();
            let answer =
                Answer { status: head.status.as_u16(), headers: head.headers, body: Bytes::new() };
            if answer.status != step.expect.status.unwrap_or(200) {
                return Err(vec![format!("status {}", answer.status)]);
            }
            let lines = answer.compare(&Expect::default(), &step.expect.headers, variables);
            let mut stream = Stream { body, buffer: Vec::new() };
            let seen = stream.compare(step, variables).await;
            streams.insert(name.clone(), stream);
            return if lines.is_empty() { seen } else { Err(lines) };
        }
        let since = Instant::now();
        loop {
            let answer = self.answer(step, variables).await;
            let lines = answer.compare(&step.expect, &step.expect.headers, variables);
            if lines.is_empty() {
                return answer.save(step, variables);
            }
            if !step.eventually || since.elapsed() > PATIENCE {
                return Err(lines);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn answer(&self, step: &Step, variables: &Variables) -> Answer {
        let (head, body) = self.send(step, variables).await.into_parts();
        let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn send(&self, step: &Step, variables: &Variables) -> Response<Body> {
        let asked = filled(step.request.as_deref().expect("a step has a request"), variables);
        let (method, path) = asked.split_once(' ').expect("METHOD and path");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &step.headers {
            request = request.header(name, filled(value, variables));
        }
        let typed = step.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        let body = match (&step.body, &step.text) {
            (Some(body), _) => {
                if !typed {
                    request = request.header("content-type", "application/json");
                }
                filled_tree(body, variables).to_string().into_bytes()
            }
            (None, Some(text)) => filled(text, variables).into_bytes(),
            (None, None) => Vec::new(),
        };
        let client = if step.anonymous { &self.anonymous } else { &self.admin };
        let request = request.body(Body::from(body)).unwrap();
        client.send(request).await.unwrap_or_else(|error| panic!("{asked}: {error}"))
    }

    async fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let step = Step {
            request: Some(format!("{method} {path}")),
            body: body.cloned(),
            ..Step::default()
        };
        self.answer(&step, &Variables::new()).await
    }
}

impl Answer {
    fn tree(&self) -> Result<Value, String> {
        let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("application/yaml")) {
            return serde_saphyr::from_slice(&self.body).map_err(|error| error.to_string());
        }
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }

    fn compare(
        &self,
        expect: &Expect,
        headers: &std::collections::BTreeMap<String, Option<String>>,
        variables: &Variables,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(status) = expect.status.filter(|status| *status != self.status) {
            lines.push(format!("status {}, should be {status}", self.status));
        }
        for (name, wanted) in headers {
            let found: Vec<&str> =
                self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            let found = (!found.is_empty()).then(|| found.join(", "));
            let wanted = wanted.as_deref().map(|wanted| filled(wanted, variables));
            let same = match (&wanted, &found) {
                (Some(wanted), Some(found)) => text_matches(wanted, found),
                (wanted, found) => wanted.is_none() && found.is_none(),
            };
            if !same {
                lines.push(format!("header {name}: {found:?}, should be {wanted:?}"));
            }
        }
        let wholes = [(&expect.body, Strictness::AtLeast), (&expect.exactly, Strictness::Exactly)];
        for (wanted, strictness) in wholes {
            let Some(wanted) = wanted else { continue };
            match self.tree() {
                Ok(found) => {
                    lines.extend(differences(&filled_tree(wanted, variables), &found, strictness))
                }
                Err(error) => lines.push(format!("the body cannot be read: {error}")),
            }
        }
        let text = String::from_utf8_lossy(&self.body);
        if let Some(wanted) = &expect.text
            && !text_matches(&filled(wanted, variables), &text)
        {
            lines.push(format!("text {text:?}, should be {wanted:?}"));
        }
        for wanted in expect.contains.iter().map(|wanted| filled(wanted, variables)) {
            if !text.contains(&wanted) {
                lines.push(format!("{wanted:?} is not in {text:?}"));
            }
        }
        if !lines.is_empty() && (expect.body.is_some() || expect.exactly.is_some()) {
            lines.push(format!("the answer: {}", text.chars().take(2000).collect::<String>()));
        }
        lines
    }

    fn save(&self, step: &Step, variables: &mut Variables) -> Result<(), Vec<String>> {
        for (name, place) in &step.save {
            let value = match place.strip_prefix("header:") {
                Some(header) => self
                    .headers
                    .get(header)
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
                None => {
                    let tree = self.tree().map_err(|error| vec![error])?;
                    tree.pointer(place).map(|value| match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    })
                }
            };
            let value = value.ok_or_else(|| vec![format!("nothing to save at {place}")])?;
            variables.insert(name.clone(), value);
        }
        Ok(())
    }
}

impl Stream {
    async fn compare(&mut self, step: &Step, variables: &mut Variables) -> Result<(), Vec<String>> {
        let mut last = Value::Null;
        for wanted in &step.expect.events {
            let wanted = filled_tree(wanted, variables);
            let event = self.next().await.map_err(|why| vec![why])?;
            let Some(event) = event else {
                return Err(vec![format!("the stream ended, should say {wanted}")]);
            };
            let lines = differences(&wanted, &event, Strictness::AtLeast);
            if !lines.is_empty() {
                return Err([lines, vec![format!("the event: {event}")]].concat());
            }
            last = event;
        }
        if step.expect.ends
            && let Some(more) = self.next().await.map_err(|why| vec![why])?
        {
            return Err(vec![format!("the stream should have ended, says {more}")]);
        }
        for (name, place) in &step.save {
            let value = last.pointer(place).and_then(Value::as_str);
            let value = value.ok_or_else(|| vec![format!("nothing to save at {place}")])?;
            variables.insert(name.clone(), value.to_owned());
        }
        Ok(())
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<Value>, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|error| {
                    format!("not an event: {error}: {}", String::from_utf8_lossy(&line))
                });
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            match frame.map_err(|_| "no event came".to_owned())? {
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                }
                Some(Err(error)) => return Err(format!("the stream broke: {error}")),
                None => return Ok(None),
            }
        }
    }
}
