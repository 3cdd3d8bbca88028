//! Row F-68: registries that are slow, unwilling, broken, or send one elsewhere.

use std::sync::Arc;

use commonage_image::{Digest, Error, Options, Policy};

use crate::made::{Content, Layer, Packed, files};
use crate::server::{Place, Registry, Seen, Twist};

/// Incompressible, so that a cut is one.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn content() -> (Content, String) {
    let layer = Layer::new(&files(&[("data", &noise(200_000))]), Packed::Gzip);
    let path = format!("/v2/app/blobs/{}", Digest::of(&layer.blob));
    (Content::image(&[layer]), path)
}

#[tokio::test]
async fn a_registry_out_of_breath_is_given_time() {
    let (content, _) = content();
    let registry = Registry::twisted(content, |seen| match seen.turn {
        0 => Some(Twist::Status(429, vec![("retry-after", "0".to_owned())])),
        1 => Some(Twist::Status(500, Vec::new())),
        2 => Some(Twist::Status(503, Vec::new())),
        _ => None,
    })
    .await;
    Place::new().pull(&registry.request("app:1")).await.unwrap();
    let registry =
        Registry::twisted(Content::default(), |_| Some(Twist::Status(500, Vec::new()))).await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(
        matches!(&error, Error::Unavailable(t) if t.contains("500") && t.contains("as told")),
        "{error}"
    );
    assert!(error.is_transient());
    assert_eq!(registry.seen().len(), 5);
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_taken_up_where_it_was() {
    let (content, path) = content();
    let cut = path.clone();
    let registry = Registry::twisted(content, move |seen| {
        (seen.path == cut && seen.turn < 8).then_some(Twist::Cut(20_000))
    })
    .await;
    Place::new().pull(&registry.request("app:1")).await.unwrap();
    let ranges: Vec<Option<String>> = registry
        .seen()
        .iter()
        .filter(|seen| seen.path == path)
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 9);
    assert_eq!(ranges[0], None);
    let begins = |range: &Option<String>| -> u64 {
        let text = range.as_deref().unwrap().trim_start_matches("bytes=").trim_end_matches('-');
        text.parse().unwrap()
    };
    let starts: Vec<u64> = ranges[1..].iter().map(begins).collect();
    assert!(starts.windows(2).all(|two| two[0] < two[1]), "{starts:?}");
}

#[tokio::test]
async fn a_blob_that_never_comes_whole_is_given_up() {
    let (content, path) = content();
    let registry =
        Registry::twisted(content, move |seen| (seen.path == path).then_some(Twist::Cut(0))).await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(matches!(&error, Error::Unavailable(t) if t.contains("after 0 of")), "{error}");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_said_at_once() {
    let registry = Registry::plain(Content::default()).await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(matches!(&error, Error::NotFound(t) if t.contains("MANIFEST_UNKNOWN")), "{error}");
    assert_eq!(registry.seen().len(), 1);
    let registry =
        Registry::twisted(Content::default(), |_| Some(Twist::Status(403, Vec::new()))).await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(matches!(&error, Error::Denied(_)), "{error}");
}

#[tokio::test]
async fn redirects_do_not_lead_to_private_places() {
    for target in [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "https://10.1.2.3/blob",
        "https://localhost/blob",
        "file:///etc/passwd",
        "http://example.com/blob",
    ] {
        let (content, path) = content();
        let registry = Registry::twisted(content, move |seen| {
            (seen.path == path).then(|| Twist::Status(307, vec![("location", target.to_owned())]))
        })
        .await;
        let error = Place::new().refused(&registry.request("app:1")).await;
        assert!(matches!(&error, Error::Forbidden(_)), "{target}: {error:?}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let (content, path) = content();
    let to = path.clone();
    let registry = Registry::twisted(content, move |seen| {
        (seen.path == path).then(|| Twist::Status(302, vec![("location", to.clone())]))
    })
    .await;
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(matches!(&error, Error::Forbidden(t) if t.contains("5 times")), "{error}");
}

/// `user:secret`, as a header.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn wants(challenge: String, good: &'static str) -> impl Fn(&Seen) -> Option<Twist> {
    move |seen| match seen.header("authorization") {
        Some(shown) if shown == good => None,
        _ => Some(Twist::Status(401, vec![("www-authenticate", challenge.clone())])),
    }
}

#[tokio::test]
async fn credentials_are_shown_and_never_to_others() {
    let (content, path) = content();
    let store = Registry::plain(content.clone()).await;
    let elsewhere = format!("http://{}{path}", store.address);
    let basic = wants("Basic realm=\"r\"".to_owned(), BASIC);
    let registry = Registry::twisted(content, move |seen| {
        basic(seen).or_else(|| {
            (seen.path == path).then(|| Twist::Status(307, vec![("location", elsewhere.clone())]))
        })
    })
    .await;
    let policy = Policy { redirects: vec![store.address.to_string()], ..Policy::default() };
    let place = Place::with(Options { policy, ..Options::default() });
    place.pull(&registry.request_as("app:1", "user", "secret")).await.unwrap();
    assert_eq!(store.seen().len(), 1);
    assert_eq!(store.seen()[0].header("authorization"), None, "the store saw the password");
    for request in [registry.request("app:1"), registry.request_as("app:1", "user", "wrong")] {
        let error = Place::new().refused(&request).await;
        assert!(matches!(&error, Error::Denied(_)), "{error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    // What one was shown, another is not given.
    let error = place.pull(&registry.request("app:1")).await.unwrap_err();
    assert!(matches!(&error, Error::Denied(t) if t.contains("imagePullSecrets")), "{error}");
}

#[tokio::test]
async fn a_token_is_got_where_the_registry_says() {
    let (content, _) = content();
    let tokens = Registry::twisted(Content::default(), |seen| {
        let named =
            seen.path.contains("service=mine") && seen.path.contains("repository%3Aapp%3Apull");
        Some(match (named, seen.header("authorization")) {
            (true, Some(BASIC)) => Twist::Body(br#"{"token":"t0k3n"}"#.to_vec()),
            (true, None) => Twist::Body(br#"{"access_token":"nobody"}"#.to_vec()),
            _ => Twist::Status(401, Vec::new()),
        })
    })
    .await;
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"mine\",scope=\"repository:app:pull\"",
        tokens.address
    );
    let registry = Registry::twisted(content, wants(challenge, "Bearer t0k3n")).await;
    let place = Place::new();
    place.pull(&registry.request_as("app:1", "user", "secret")).await.unwrap();
    assert_eq!(tokens.seen().len(), 1, "one token for the whole pull");
    let error = Place::new().refused(&registry.request("app:1")).await;
    assert!(matches!(&error, Error::Denied(_)), "{error:?}");
}

#[tokio::test]
async fn a_realm_that_is_no_place_to_show_a_password_is_not_shown_one() {
    for realm in ["http://169.254.169.254/token", "http://example.com/token", "file:///etc/passwd"]
    {
        let challenge = Arc::new(format!("Bearer realm=\"{realm}\",service=\"x\""));
        let registry = Registry::twisted(Content::default(), move |_| {
            Some(Twist::Status(401, vec![("www-authenticate", challenge.to_string())]))
        })
        .await;
        let error = Place::new().refused(&registry.request_as("app:1", "user", "secret")).await;
        assert!(matches!(&error, Error::Forbidden(_)), "{realm}: {error:?}");
    }
}
