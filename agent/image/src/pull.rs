//! One pull: manifest, configuration, then all layers that are not there yet, several at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use commonage_failpoint::reach;
use futures::future::try_join_all;
use tokio::sync::mpsc;

use crate::config;
use crate::credentials::fingerprint;
use crate::digest::Digest;
use crate::error::Error;
use crate::flight::Reporter;
use crate::images::{Progress, Request, Shared, blocking};
use crate::layer;
use crate::manifest::{self, ACCEPT, Descriptor, Document, Layer, Manifest};
use crate::registry::Session;
use crate::store::{ImageItem, LayerItem};
use crate::unpack::Budget;

/// A layer as one caller may have it: two who may differ pull it side by side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LayerKey {
    diff_id: Digest,
    blob: Digest,
    repository: String,
    who: Digest,
}

/// Indexes within indexes.
const DEPTH_MAX: usize = 2;
/// Pieces of a blob that wait to be unpacked, of some 16 KiB each.
const CHUNKS: usize = 64;
/// Free space that stays, whatever an image wants.
const DISK_RESERVE: u64 = 64 << 20;

/// Pulls an image.
pub(crate) async fn image(
    shared: Arc<Shared>,
    request: Request,
    reporter: Reporter<Progress, ImageItem>,
) -> Result<ImageItem, Error> {
    let who = fingerprint(request.credentials.as_ref());
    let session =
        Arc::new(shared.registry.session(&request.reference, request.credentials.as_ref()));
    let named = request.reference.to_string();
    let (digest, manifest) =
        find_manifest(&shared, &session, &request).await.map_err(|error| error.at(&named))?;
    if let Some(known) = shared.store.image(&digest) {
        note_name(&shared, &request, digest, who).await?;
        return Ok(known);
    }
    let (config, diff_ids) =
        find_config(&shared, &session, &manifest).await.map_err(|error| error.at(&named))?;
    let _busy = Busy::begin(&shared, &diff_ids).await;
    check_room(&shared, &manifest)?;
    let repository = format!("{}/{}", request.reference.endpoint(), request.reference.repository());
    let meter = Meter::new(&manifest, reporter);
    let budget = Arc::new(Budget::new(&shared.options.limits));
    let layers =
        manifest.layers.iter().zip(&diff_ids).enumerate().map(|(place, (layer, diff_id))| {
            let key = LayerKey {
                diff_id: *diff_id,
                blob: layer.blob.digest,
                repository: repository.clone(),
                who,
            };
            let (shared, session, meter) = (&shared, &session, &meter);
            let budget = Arc::clone(&budget);
            async move {
                let done = one_layer(shared, session, key, layer.clone(), budget, |bytes| {
                    meter.set(place, bytes);
                });
                let done = done.await.map_err(|error| error.at(&format!("layers[{place}]")))?;
                meter.set(place, layer.blob.size);
                Ok::<LayerItem, Error>(done)
            }
        });
    let layers = try_join_all(layers).await.map_err(|error| error.at(&named))?;
    check_total(&shared, &layers).map_err(|error| error.at(&named))?;
    let store = Arc::clone(&shared.store);
    let item = blocking(move || store.commit_image(digest, config, &layers)).await?;
    reach("image.after_commit_before_name");
    note_name(&shared, &request, digest, who).await?;
    let store = Arc::clone(&shared.store);
    // Nobody waits for the disk: see the store.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = store.settle() {
            tracing::warn!(%error, "a new image may not outlive a power cut");
        }
    });
    Ok(item)
}

async fn note_name(
    shared: &Arc<Shared>,
    request: &Request,
    digest: Digest,
    who: Digest,
) -> Result<(), Error> {
    let (store, reference) = (Arc::clone(&shared.store), request.reference.clone());
    blocking(move || store.note_name(&reference, digest, who)).await
}

/// Follows the name to a manifest for this machine.
async fn find_manifest(
    shared: &Shared,
    session: &Session,
    request: &Request,
) -> Result<(Digest, Manifest), Error> {
    let limits = &shared.options.limits;
    let mut target = request.reference.target();
    let mut expected = request.reference.digest().map(|digest| (digest, None));
    for _ in 0..=DEPTH_MAX {
        let path = format!("manifests/{target}");
        let (bytes, media) = session.document(&path, ACCEPT, limits.document_bytes).await?;
        let digest = Digest::of(&bytes);
        if let Some((wanted, size)) = expected {
            check(&bytes, &Descriptor { digest: wanted, size: size.unwrap_or(bytes.len() as u64) })
                .map_err(|error| error.at("manifest"))?;
        }
        match manifest::read(&bytes, media.as_deref(), &shared.platform, limits)? {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(next) => {
                target = next.digest.to_string();
                expected = Some((next.digest, Some(next.size)));
            }
        }
    }
    Err(Error::Invalid(format!("index.manifests: more than {DEPTH_MAX} indexes within each other")))
}

async fn find_config(
    shared: &Shared,
    session: &Session,
    manifest: &Manifest,
) -> Result<(crate::config::ImageConfig, Vec<Digest>), Error> {
    let path = format!("blobs/{}", manifest.config.digest);
    let most = shared.options.limits.document_bytes;
    let (bytes, _) = session.document(&path, "*/*", most).await?;
    check(&bytes, &manifest.config).map_err(|error| error.at("config"))?;
    config::read(&bytes, manifest.layers.len(), &shared.platform)
}

fn check(bytes: &[u8], said: &Descriptor) -> Result<(), Error> {
    if bytes.len() as u64 != said.size {
        return Err(Error::Invalid(format!(
            "size: the registry sends {} bytes instead of {}",
            bytes.len(),
            said.size
        )));
    }
    let digest = Digest::of(bytes);
    if digest != said.digest {
        return Err(Error::Invalid(format!(
            "digest: the registry's bytes have {digest} instead of {}",
            said.digest
        )));
    }
    Ok(())
}

/// Refuses early what can't fit; unpacked, an image is no smaller than this.
fn check_room(shared: &Shared, manifest: &Manifest) -> Result<(), Error> {
    let wanted: u64 = manifest.layers.iter().map(|layer| layer.blob.size).sum();
    let free = shared.store.disk_free()?;
    if free < wanted.saturating_add(DISK_RESERVE) {
        return Err(Error::DiskFull(format!(
            "the image has {wanted} bytes to unpack, and the disk of the agent's images {free} left"
        )));
    }
    Ok(())
}

/// Layers that were there count as well.
fn check_total(shared: &Shared, layers: &[LayerItem]) -> Result<(), Error> {
    let limits = &shared.options.limits;
    let bytes: u64 = layers.iter().map(|layer| layer.bytes).sum();
    let inodes: u64 = layers.iter().map(|layer| layer.inodes).sum();
    if bytes > limits.unpacked_bytes || inodes > limits.inodes {
        return Err(Error::Invalid(format!(
            "manifest.layers: {inodes} files with {bytes} bytes, more than {} and {}",
            limits.inodes, limits.unpacked_bytes
        )));
    }
    Ok(())
}

async fn one_layer(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    key: LayerKey,
    layer: Layer,
    budget: Arc<Budget>,
    heard: impl FnMut(u64),
) -> Result<LayerItem, Error> {
    if let Some(known) = shared.store.layer(&key.diff_id) {
        return Ok(known);
    }
    let diff_id = key.diff_id;
    let start = |reporter: Reporter<u64, LayerItem>| {
        let (shared, session) = (Arc::clone(shared), Arc::clone(session));
        async move { fetch_layer(shared, session, layer, diff_id, budget, reporter).await }
    };
    shared.layers.join(key, start, heard).await
}

async fn fetch_layer(
    shared: Arc<Shared>,
    session: Arc<Session>,
    layer: Layer,
    diff_id: Digest,
    budget: Arc<Budget>,
    reporter: Reporter<u64, LayerItem>,
) -> Result<LayerItem, Error> {
    let _slot = shared.layer_slots.acquire().await;
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let store = Arc::clone(&shared.store);
    let expected = layer.clone();
    let unpacking = blocking(move || {
        let temporary = store.temporary()?;
        layer::make_tree(&temporary.tree())?;
        let unpacked = layer::apply(chunks, &expected, diff_id, &temporary.tree(), &budget)?;
        reach("image.after_unpack_before_commit");
        store.commit_layer(temporary, diff_id, unpacked)
    });
    let fetching = async {
        let fetched = session.blob(&layer.blob, &sender, |bytes| reporter.say(bytes)).await;
        drop(sender);
        fetched
    };
    let (fetched, unpacked) = tokio::join!(fetching, unpacking);
    match (fetched, unpacked) {
        (Ok(()), unpacked) => unpacked,
        // The unpacker wanted no more, and says why.
        (Err(Error::Local(_)), Err(why)) => Err(why),
        (Err(error), _) => Err(error),
    }
}

/// Adds up what has come of all layers.
struct Meter {
    layers: Vec<AtomicU64>,
    total: u64,
    reporter: Reporter<Progress, ImageItem>,
}

impl Meter {
    fn new(manifest: &Manifest, reporter: Reporter<Progress, ImageItem>) -> Meter {
        let layers = manifest.layers.iter().map(|_| AtomicU64::new(0)).collect();
        let total = manifest.layers.iter().map(|layer| layer.blob.size).sum();
        Meter { layers, total, reporter }
    }

    fn set(&self, place: usize, bytes: u64) {
        self.layers[place].fetch_max(bytes, Ordering::Relaxed);
        let done = self.layers.iter().map(|layer| layer.load(Ordering::Relaxed)).sum();
        self.reporter.say(Progress { done, total: self.total });
    }
}

/// Says that layers are about to be used by an image that is not there yet.
struct Busy<'a> {
    busy: &'a Mutex<std::collections::HashMap<Digest, usize>>,
    layers: Vec<Digest>,
}

impl Busy<'_> {
    /// From here on none of them is removed; those that are being removed are gone when this returns.
    async fn begin<'a>(shared: &'a Shared, layers: &[Digest]) -> Busy<'a> {
        let _no_removal = shared.removal.read().await;
        let mut busy = shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            *busy.entry(*layer).or_default() += 1;
        }
        Busy { busy: &shared.busy, layers: layers.to_vec() }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in &self.layers {
            if let Some(count) = busy.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    busy.remove(layer);
                }
            }
        }
    }
}
