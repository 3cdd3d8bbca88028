//! The end of kube-runtime's controllers.

use std::hash::Hash;

use futures::FutureExt;
use kube::{Resource, runtime::reflector::Store};
use tokio_util::sync::CancellationToken;

/// Runs a kube-runtime `Controller`, which has been told to end at `shutdown`, to that end.
///
/// It begins nothing before its first list is complete, and does not even end before: with an API server that does not
/// answer it would never. `known` is what it knows of its kind.
pub(crate) async fn until_ended<K>(
    controller: impl Future<Output = ()>,
    known: Store<K>,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType: Hash + Eq + Clone> + Clone + 'static,
{
    let never_began = async {
        shutdown.cancelled().await;
        if known.wait_until_ready().now_or_never().is_some() {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = controller => {}
        () = never_began => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use tokio::time::timeout;

    use super::*;

    /// It takes requests and answers none.
    fn silent_api() -> (Client, CancellationToken) {
        let asked = CancellationToken::new();
        let noted = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            noted.cancel();
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        });
        (Client::new(service, "n"), asked)
    }

    #[tokio::test]
    async fn controllers_that_have_not_read_their_first_list_end_too() {
        let (client, asked) = silent_api();
        let shutdown = CancellationToken::new();
        let patience = crate::Patience::default();
        let agents = crate::agents::run(client.clone(), patience, shutdown.clone());
        let frameworks = crate::frameworks::run(client.clone(), shutdown.clone());
        let defaults = crate::frameworks::defaults::run(client.clone(), shutdown.clone());
        let namespaces = crate::namespaces::run(client, None, shutdown.clone());
        let all = async { tokio::try_join!(agents, frameworks, defaults, namespaces) };
        let stop = async {
            asked.cancelled().await;
            shutdown.cancel();
        };
        let both = async { tokio::join!(all, stop).0 };
        timeout(Duration::from_secs(60), both).await.expect("they end").unwrap();
    }
}
