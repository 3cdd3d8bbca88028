//! What a request's headers ask for.
#![allow(clippy::unwrap_used)]

use http::HeaderMap;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL};

use super::{Kind, lists, negotiated};

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
    }
    headers
}

#[test]
fn the_clients_first_protocol_that_we_speak_is_taken() {
    let ours = [("v5", 5), ("v4", 4)];
    let of = |values: &[&str]| {
        negotiated(&headers(values), SEC_WEBSOCKET_PROTOCOL, &ours, Some(1)).map_err(|e| e.code)
    };
    assert_eq!(of(&[]), Ok((None, 1)));
    assert_eq!(of(&["v4, v5"]), Ok((Some("v4"), 4)));
    assert_eq!(of(&["v9", "v5"]), Ok((Some("v5"), 5)));
    assert_eq!(of(&["v9"]), Err(403));
}

#[test]
fn a_list_may_have_several_words() {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, "keep-alive, Upgrade".parse().unwrap());
    assert!(lists(&headers, CONNECTION, "upgrade"));
    assert!(!lists(&headers, CONNECTION, "close"));
}

#[test]
fn only_three_subresources_are_streams() {
    assert_eq!(Kind::of("attach"), Some(Kind::Attach));
    assert_eq!(Kind::of("log"), None);
}
