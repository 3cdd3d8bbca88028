//! Requests that stay open: watches, followed logs, sessions within tasks.
//!
//! Each is authenticated and authorized when it begins, and once more every so often: a token expires or its
//! account is deleted, a binding is taken away. One that would be refused by now is ended without a word, as at the
//! end of its time; the client asks again and is told why.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::chain::{self, Caller};
use super::request_info::RequestInfo;
use super::{App, impersonate};
use crate::streams::Kind;

/// `design/reliability.md` F-79 and F-88: what has been taken away has no effect after a minute.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(30);
/// Checked without a break: about a millisecond's worth.
const CHECK_AT_ONCE: usize = 200;

/// One of them, and by whose authority it is open.
struct OpenCall {
    caller: Caller,
    /// Those that say who it is.
    headers: HeaderMap,
    info: RequestInfo,
    field_selector: String,
    end: CancellationToken,
}

impl OpenCall {
    async fn may_go_on(&self, app: &App) -> bool {
        let Ok(caller) = chain::authenticate(app, &self.caller, &self.headers).await else {
            return false;
        };
        let Ok(user) = impersonate::effective_user(&app.engine, caller, &self.headers) else {
            return false;
        };
        let request = chain::attributes(&self.info, &self.field_selector);
        let may = |request| !app.engine.access().decide(&user, &request).is_denied();
        let creates = Kind::of(&self.info.subresource).is_some();
        may(request) && (!creates || may(chain::Attributes { verb: "create", ..request }))
    }
}

/// When a call has to end: when the server does, or its authority. While this is kept, it is open.
#[derive(Clone)]
pub(crate) struct Ends {
    token: CancellationToken,
    _open: Option<Arc<OpenCall>>,
}

impl Ends {
    /// With the server only.
    pub(super) fn with(server_ends: &CancellationToken) -> Ends {
        Ends { token: server_ends.clone(), _open: None }
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub(crate) async fn ended(self) {
        self.token.cancelled().await;
    }
}

/// All that are open.
#[derive(Default)]
pub(super) struct OpenCalls(Mutex<Vec<Weak<OpenCall>>>);

impl OpenCalls {
    /// Notes a call that was let in.
    pub(super) fn enter(
        &self,
        server_ends: &CancellationToken,
        caller: &Caller,
        headers: &HeaderMap,
        info: &RequestInfo,
        field_selector: &str,
    ) -> Ends {
        if matches!(caller, Caller::InProcess(_)) {
            return Ends::with(server_ends);
        }
        let end = server_ends.child_token();
        let says_who = |name: &str| {
            name.starts_with(impersonate::PREFIX)
                || [AUTHORIZATION.as_str(), "sec-websocket-protocol"].contains(&name)
        };
        let headers = headers.iter().filter(|(name, _)| says_who(name.as_str()));
        let open = Arc::new(OpenCall {
            caller: caller.clone(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            info: info.clone(),
            field_selector: field_selector.to_owned(),
            end: end.clone(),
        });
        self.0.lock().push(Arc::downgrade(&open));
        Ends { token: end, _open: Some(open) }
    }

    fn all(&self) -> Vec<Arc<OpenCall>> {
        let mut all = self.0.lock();
        all.retain(|open| open.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Ends what may not go on, until the server ends.
pub(crate) async fn check(app: Arc<App>, every: Duration) {
    loop {
        tokio::select! {
            () = app.end_watches.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        for some in app.open_calls.all().chunks(CHECK_AT_ONCE) {
            for open in some {
                if !open.may_go_on(&app).await {
                    tracing::info!(
                        path = open.info.path,
                        "the authority of an open request is gone"
                    );
                    open.end.cancel();
                }
            }
            tokio::task::yield_now().await;
        }
    }
}
