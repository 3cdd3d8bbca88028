//! What the allocator looks at, followed from before it decides: whoever takes over from another leader does not have to
//! read the cluster first.
//!
//! It keeps objects, and no books: those say what is to be done, and whoever does nothing would only pile that up.

use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::world::{Input, Inputs, World};

/// Events taken in at one go.
const INPUTS_PER_TURN: usize = 1024;

pub(crate) struct Standby {
    world: World,
    inputs: Inputs,
    /// The version of the cluster that is to be known before anything is decided; 0: whatever the first lists say.
    from: u64,
}

impl Standby {
    /// Starts following.
    pub(crate) fn new(client: &Client) -> Standby {
        Standby { world: World::default(), inputs: Inputs::follow(client), from: 0 }
    }

    /// Keeps up with what happens, until `elected`.
    pub(crate) async fn keep_up(mut self, elected: CancellationToken) -> Standby {
        let mut waiting: Vec<Input> = Vec::with_capacity(INPUTS_PER_TURN);
        loop {
            tokio::select! {
                biased;
                () = elected.cancelled() => return self,
                taken = self.take_in(&mut waiting) => if let Err(error) = taken {
                    // Whoever leads hears of it.
                    warn!(%error, "standing by without knowing the cluster");
                    elected.cancelled().await;
                },
            }
        }
    }

    /// Waits until everything is known from which to lead.
    ///
    /// # Errors
    /// The watches ended, which they never should.
    pub(super) async fn ready(mut self) -> anyhow::Result<(World, Inputs)> {
        let mut waiting: Vec<Input> = Vec::with_capacity(INPUTS_PER_TURN);
        while !self.world.has_reached(self.from) {
            self.take_in(&mut waiting).await?;
        }
        Ok((self.world, self.inputs))
    }

    /// Cancel safe.
    async fn take_in(&mut self, waiting: &mut Vec<Input>) -> anyhow::Result<()> {
        let taken = self.inputs.recv(waiting, INPUTS_PER_TURN).await;
        anyhow::ensure!(taken > 0, "all watches of the allocator ended");
        waiting.drain(..).for_each(|input| self.world.take_in(input));
        Ok(())
    }

    /// From here on we lead, and know everything that was written before `version`.
    pub(crate) fn leads_from(mut self, version: u64) -> Standby {
        self.inputs.want(version);
        self.from = version;
        self
    }
}
