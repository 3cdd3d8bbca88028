//! The client of registries: requests that are authorized, redirected with care, and repeated when that may
//! help. What the answers mean is [`crate::pull`]'s affair.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use tokio::sync::Mutex;

use crate::credentials::Credentials;
use crate::error::Error;
use crate::reference::Reference;

mod auth;
mod blob;
mod transport;

pub use transport::Policy;
use transport::{Transport, Way};

const AGENT: &str = concat!("commonage/", env!("CARGO_PKG_VERSION"));
/// Redirects in a row.
const REDIRECTS_MAX: usize = 5;
/// What is read of an answer that only says what is wrong.
const COMPLAINT_MAX: usize = 16 << 10;

/// How patient a client is.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Attempts at one request, and at one piece of a blob that brings nothing new.
    pub attempts: u32,
    /// Pause after the first failure; doubled with every further one.
    pub first: Duration,
    /// The longest pause, also of those that the registry asks for.
    pub longest: Duration,
    /// An answer, or the next bytes of one, must come within this.
    pub stall: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            attempts: 5,
            first: Duration::from_millis(250),
            longest: Duration::from_secs(20),
            stall: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// The pause after a number of failures, half of it by chance, so that machines do not come in step.
    pub(crate) fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let full = self.first.saturating_mul(1 << failures.min(16)).min(self.longest);
        let mut byte = [0_u8; 1];
        // Without chance the pause is only the same for all.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
        let spread = full.mul_f64(0.5 + f64::from(byte[0]) / 510.0);
        asked.map_or(spread, |asked| asked.min(self.longest).max(spread))
    }
}

/// The client; cheap to share, connections are kept.
pub(crate) struct Registry {
    transport: Transport,
    pub(crate) pace: Pace,
}

impl Registry {
    pub(crate) fn new(policy: Policy, pace: Pace) -> Registry {
        Registry { transport: Transport::new(policy), pace }
    }

    /// One request and the redirects that its answers are.
    async fn follow(
        &self,
        mut url: Uri,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Attempt> {
        let home = url.clone();
        let mut way = Way::Direct;
        for _ in 0..=REDIRECTS_MAX {
            // Nobody but the registry itself sees what was meant for it.
            let same = url.scheme() == home.scheme() && url.authority() == home.authority();
            let shown = authorization.filter(|_| same);
            let response = self.send(&url, headers, shown, way).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(http::header::LOCATION);
            let target = target.and_then(|value| value.to_str().ok()).unwrap_or_default();
            let transport = &self.transport;
            (url, way) = transport.redirect(&home, &url, target).map_err(Attempt::Failed)?;
        }
        Err(Attempt::Failed(Error::Forbidden(format!(
            "{} redirects more than {REDIRECTS_MAX} times",
            home.authority().map_or("", |authority| authority.as_str())
        ))))
    }

    async fn send(
        &self,
        url: &Uri,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
        way: Way,
    ) -> Result<Response<Incoming>, Attempt> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let host = url.authority().map_or("", |authority| authority.as_str());
        let exchange = self.transport.request(request, way);
        match tokio::time::timeout(self.pace.stall, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(match transport::forbidden(&error) {
                Some(what) => Attempt::Failed(Error::Forbidden(format!("{host}: {what}"))),
                None => Attempt::Again(
                    Error::Unavailable(format!("{host}: {}", transport::describe(&error))),
                    None,
                ),
            }),
            Err(_) => {
                let text = format!("{host}: no answer within {:?}", self.pace.stall);
                Err(Attempt::Again(Error::Unavailable(text), None))
            }
        }
    }

    /// The answer of any address, with nobody's credentials.
    pub(crate) async fn open(
        &self,
        url: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Error> {
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(Error::Forbidden(format!("{url}: only http and https are fetched")));
        }
        transport::refuse_literal(url)?;
        self.follow(url.clone(), headers, None).await.map_err(|attempt| match attempt {
            Attempt::Failed(error) | Attempt::Again(error, _) => error,
        })
    }

    /// A conversation about one image.
    pub(crate) fn session(
        self: &Arc<Registry>,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Session {
        Session {
            registry: Arc::clone(self),
            reference: reference.clone(),
            credentials: credentials.cloned(),
            authorization: Mutex::new(None),
        }
    }
}

/// One pull's conversation with one registry.
pub(crate) struct Session {
    registry: Arc<Registry>,
    reference: Reference,
    credentials: Option<Credentials>,
    /// What the registry wanted to see, once it has said so.
    authorization: Mutex<Option<HeaderValue>>,
}

/// What went wrong with one attempt.
enum Attempt {
    /// For good.
    Failed(Error),
    /// Not before this long, if the registry said so.
    Again(Error, Option<Duration>),
}

impl Session {
    /// GETs a path below the repository, until an answer comes that says something.
    async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Error> {
        let mut failures = 0;
        loop {
            match self.attempt(path, headers).await {
                Ok(response) => return Ok(response),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again(error, asked)) => {
                    failures += 1;
                    if failures >= self.registry.pace.attempts {
                        return Err(error);
                    }
                    let pause = self.registry.pace.pause(failures - 1, asked);
                    tracing::debug!(%error, ?pause, "a registry is asked again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Attempt> {
        let host = self.reference.endpoint();
        let scheme = self.registry.transport.scheme(host);
        let url = format!("{scheme}://{host}/v2/{}/{path}", self.reference.repository());
        let url: Uri = url.parse().map_err(|error| {
            Attempt::Failed(Error::Reference(format!("no address of a registry: {error}")))
        })?;
        transport::refuse_literal(&url).map_err(Attempt::Failed)?;
        let shown = self.authorization.lock().await.clone();
        let response = self.registry.follow(url.clone(), headers, shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judge(response).await;
        }
        // Once more with what it wants; a second refusal is one.
        let wanted = self.authorize(&response, &url, shown.as_ref()).await?;
        let response = self.registry.follow(url, headers, Some(&wanted)).await?;
        self.judge(response).await
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Attempt> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let asked = retry_after(response.headers());
        let complaint = complaint(response).await;
        let host = self.reference.endpoint();
        let text = format!("{host} answered {status}{complaint}");
        Err(match status.as_u16() {
            401 if self.credentials.is_none() => Attempt::Failed(Error::Denied(format!(
                "{text}; it wants credentials, and spec.container.imagePullSecrets names none for it"
            ))),
            401 | 403 => Attempt::Failed(Error::Denied(text)),
            404 | 410 => Attempt::Failed(Error::NotFound(text)),
            408 | 425 | 429 | 500..=599 => Attempt::Again(Error::Unavailable(text), asked),
            _ => Attempt::Failed(Error::Unavailable(text)),
        })
    }

    /// A manifest, an index or a configuration: small, and read whole. With its media type.
    pub(crate) async fn document(
        &self,
        path: &str,
        accept: &str,
        most: u64,
    ) -> Result<(Bytes, Option<String>), Error> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(accept) {
            headers.insert(ACCEPT, value);
        }
        let response = self.get(path, &headers).await?;
        let media = response.headers().get(http::header::CONTENT_TYPE);
        let media = media.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let whole = Limited::new(response.into_body(), most).collect();
        match tokio::time::timeout(self.registry.pace.stall, whole).await {
            Ok(Ok(body)) => Ok((body.to_bytes(), media)),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Error::Invalid(format!("{path}: is larger than {most} bytes")))
            }
            Ok(Err(error)) => Err(Error::Unavailable(format!("{path}: {error}"))),
            Err(_) => Err(Error::Unavailable(format!("{path}: stopped within the answer"))),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What a registry says is wrong, for people: `: MANIFEST_UNKNOWN: manifest unknown`.
async fn complaint(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), COMPLAINT_MAX).collect();
    let body = tokio::time::timeout(Duration::from_secs(5), body).await;
    let Ok(Ok(body)) = body else { return String::new() };
    let value: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let text = |key: &str| value.pointer(&format!("/errors/0/{key}")).and_then(|v| v.as_str());
    match (text("code"), text("message")) {
        (None, None) => String::new(),
        (code, message) => {
            let words = [code, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let short: String = words.chars().filter(|c| !c.is_control()).take(200).collect();
            format!(": {short}")
        }
    }
}

/// `Range` from a place to the end.
fn range_from(offset: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if offset > 0
        && let Ok(value) = HeaderValue::from_str(&format!("bytes={offset}-"))
    {
        headers.insert(RANGE, value);
    }
    headers
}
