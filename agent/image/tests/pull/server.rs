//! A registry of a hundred lines, which misbehaves as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use commonage_image::{Credentials, Error, Image, Images, Options, Pace, Request};
use futures::{StreamExt, stream};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::made::Content;

type Body = BoxBody<Bytes, io::Error>;

/// One request, as the registry saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Which one of this path it is, from 0.
    pub(crate) turn: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What to do instead of answering well.
pub(crate) enum Twist {
    /// A status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The right answer, cut after so many bytes.
    Cut(usize),
    /// This body.
    Body(Vec<u8>),
}

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Registry {
    pub(crate) async fn plain(content: Content) -> Registry {
        Registry::twisted(content, |_| None).await
    }

    pub(crate) async fn twisted(
        content: Content,
        twist: impl Fn(&Seen) -> Option<Twist> + Send + Sync + 'static,
    ) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared = Arc::new((content, twist, Arc::clone(&seen)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(|request: http::Request<Incoming>| {
                        let (content, twist, seen) = &*shared;
                        let now = note(seen, &request);
                        let answer = answer(content, &now, twist(&now));
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A connection that breaks off is what some tests are about.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Registry { address, seen, _task: AbortOnDrop(task.abort_handle()) }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests there were below a path.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }

    pub(crate) fn request(&self, name: &str) -> Request {
        let reference = format!("{}/{name}", self.address).parse().unwrap();
        Request { reference, credentials: None }
    }

    pub(crate) fn request_as(&self, name: &str, username: &str, password: &str) -> Request {
        let (username, password) = (username.to_owned(), password.to_owned());
        Request { credentials: Some(Credentials { username, password }), ..self.request(name) }
    }
}

fn note(seen: &Mutex<Vec<Seen>>, request: &http::Request<Incoming>) -> Seen {
    let mut seen = seen.lock().unwrap();
    let path = request.uri().to_string();
    let turn = seen.iter().filter(|earlier| earlier.path == path).count();
    let now = Seen { path, headers: request.headers().clone(), turn };
    seen.push(now.clone());
    now
}

fn full(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn answer(content: &Content, seen: &Seen, twist: Option<Twist>) -> Response<Body> {
    let found = find(content, &seen.path);
    match twist {
        Some(Twist::Status(status, headers)) => {
            let body = r#"{"errors":[{"code":"TWISTED","message":"as told"}]}"#;
            let mut response = full(StatusCode::from_u16(status).unwrap(), body);
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            return response;
        }
        Some(Twist::Body(body)) => return full(StatusCode::OK, body),
        Some(Twist::Cut(after)) => {
            let bytes = found.unwrap().1;
            let start = range(seen).unwrap_or(0);
            let end = bytes.len().min(start + after);
            let piece = Ok(Frame::data(Bytes::copy_from_slice(&bytes[start..end])));
            // In two steps, so that the first is sent.
            let broken = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Err(io::Error::other("cut"))
            };
            let body = StreamBody::new(stream::iter([piece]).chain(stream::once(broken)));
            let mut response = Response::new(BodyExt::boxed(body));
            length(&mut response, bytes.len(), start);
            return response;
        }
        None => {}
    }
    let Some((media, bytes)) = found else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return full(StatusCode::NOT_FOUND, body);
    };
    let start = range(seen).unwrap_or(0);
    let mut response = full(StatusCode::OK, bytes[start..].to_vec());
    length(&mut response, bytes.len(), start);
    response.headers_mut().insert("content-type", media.parse().unwrap());
    response
}

fn length(response: &mut Response<Body>, total: usize, start: usize) {
    if start > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{total}", total - 1);
        response.headers_mut().insert("content-range", range.parse().unwrap());
    }
    response.headers_mut().insert("content-length", (total - start).into());
}

fn range(seen: &Seen) -> Option<usize> {
    seen.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn find(content: &Content, path: &str) -> Option<(String, Vec<u8>)> {
    let (_, name) = path.rsplit_once('/')?;
    if path.contains("/manifests/") {
        return content.manifests.get(name).cloned();
    }
    let blob = content.blobs.get(name)?.clone();
    Some(("application/octet-stream".to_owned(), blob))
}

/// A store of its own, which tells what is left in it.
pub(crate) struct Place {
    pub(crate) images: Images,
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let first = Duration::from_millis(5);
        let pace = Pace { first, longest: first * 4, ..Pace::default() };
        let images = Images::open(dir.path(), Options { pace, ..options }).unwrap();
        Place { images, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn pull(&self, request: &Request) -> Result<Image, Error> {
        self.images.pull(request, |_| {}).await
    }

    /// How many entries each part of the store has: layers, images, temporaries.
    pub(crate) fn left(&self) -> HashMap<&'static str, usize> {
        let count = |part: &str| std::fs::read_dir(self.path().join(part)).unwrap().count();
        ["layers", "images", "tmp"].map(|part| (part, count(part))).into()
    }

    /// Fails, and leaves nothing.
    pub(crate) async fn refused(&self, request: &Request) -> Error {
        let error = self.pull(request).await.unwrap_err();
        let left = self.left();
        assert_eq!((left["images"], left["tmp"]), (0, 0), "{error}: {left:?}");
        error
    }
}

/// Where a file of an image is, looking from the top.
pub(crate) fn find_file(image: &Image, path: &str) -> Option<PathBuf> {
    image.layers.iter().map(|layer| layer.join(path)).find(|path| path.exists())
}
