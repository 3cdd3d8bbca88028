//! The client of one term: it names the term with everything it sends, and tells when the API
//! server says that the term has ended.

use commonage_schemas::names::{FENCE_HEADER, FENCED_HEADER};
use http::{HeaderName, HeaderValue, Request};
use kube::Client;
use kube::client::Body;
use tokio_util::sync::CancellationToken;

/// `deposed` is cancelled by the first write that is refused.
pub(super) fn behind(client: &Client, fence: &HeaderValue, deposed: CancellationToken) -> Client {
    let (inner, fence) = (client.clone(), fence.clone());
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (inner, fence, deposed) = (inner.clone(), fence.clone(), deposed.clone());
        async move {
            request.headers_mut().insert(HeaderName::from_static(FENCE_HEADER), fence);
            let response = inner.send(request).await?;
            if response.headers().contains_key(FENCED_HEADER) {
                deposed.cancel();
            }
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, client.default_namespace().to_owned())
}
