//! What the tests of all families begin with.

use std::sync::Arc;

use commonage_e2e::faults::servers::Servers;
use commonage_e2e::history::Answer;
use commonage_e2e::recorder::{Load, Recorder, Server, Shape};
use commonage_e2e::soon;

/// API servers over a store, a client of each, and a recorder of what they say.
pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) clients: Vec<Server>,
    pub(crate) recorder: Arc<Recorder>,
}

impl World {
    pub(crate) async fn start(count: usize, store: &str) -> World {
        World::over(Servers::start(count, &["--store", store]).await.unwrap()).await
    }

    pub(crate) async fn over(servers: Servers) -> World {
        let clients = servers.all().await.unwrap();
        let recorder = Recorder::prepare(&clients, "faults").await.unwrap();
        World { servers, clients, recorder }
    }

    pub(crate) async fn load(&self) -> Load {
        Load::start(&self.recorder, &self.clients, Shape::default()).await
    }

    /// Returns when every server does what it is asked again.
    pub(crate) async fn works(&self) {
        for client in &self.clients {
            works(&self.recorder, client).await;
        }
    }
}

/// Returns when a write through this server has succeeded.
pub(crate) async fn works(recorder: &Recorder, server: &Server) {
    let number = recorder.client();
    let mut turn = 0;
    soon("a write to succeed", async || {
        turn += 1;
        let name = format!("works-{number}-{turn}");
        match recorder.create(number, server, &name, ("red", "a")).await {
            Answer::Object(_) => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
}
