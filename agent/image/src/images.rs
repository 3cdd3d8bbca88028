//! All images of a machine: what the rest of the agent sees of this crate.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::config::ImageConfig;
use crate::credentials::{Credentials, fingerprint};
use crate::digest::Digest;
use crate::error::Error;
use crate::flight::Flights;
use crate::limits::Limits;
use crate::manifest::Platform;
use crate::pull::{self, LayerKey};
use crate::reference::Reference;
use crate::registry::{Pace, Policy, Registry};
use crate::store::{Collected, ImageItem, Kept, LayerItem, Store, Watermarks};

/// Layers at once, of all images together: enough to keep two cores busy and a registry unharmed.
const LAYERS_AT_ONCE: usize = 4;

/// How images are got and kept.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How large an image may be.
    pub limits: Limits,
    /// Where it may come from.
    pub policy: Policy,
    /// When it goes again.
    pub watermarks: Watermarks,
    /// For which machine; default this one.
    pub platform: Option<Platform>,
    /// How patiently a registry is asked.
    pub pace: Pace,
}

/// What to pull, and as whom.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which image.
    pub reference: Reference,
    /// Absent: as nobody.
    pub credentials: Option<Credentials>,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that have come, and of layers that were there already.
    pub done: u64,
    /// Bytes of all layers as the registry has them; 0 as long as that is not known.
    pub total: u64,
}

impl Progress {
    /// 0 to 100, rounded down; 0 as long as nothing is known.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(0);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// An image that can be run. Its files stay as long as this value lives; whoever goes on using them names it in
/// [`Images::collect`].
#[derive(Debug)]
pub struct Image {
    /// Of its manifest.
    pub digest: Digest,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// What overlayfs stacks, uppermost first; absolute.
    pub layers: Vec<PathBuf>,
    /// Unpacked.
    pub bytes: u64,
    _pin: Pin,
}

/// Images that were handed out, and how often.
type Pins = Arc<Mutex<HashMap<Digest, usize>>>;

#[derive(Debug)]
struct Pin {
    digest: Digest,
    pins: Pins,
}

impl Pin {
    fn new(pins: &Pins, digest: Digest) -> Pin {
        *pins.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default() += 1;
        Pin { digest, pins: Arc::clone(pins) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

/// The images of a machine. One per directory; cheap to clone.
#[derive(Clone)]
pub struct Images(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) options: Options,
    pub(crate) platform: Platform,
    pub(crate) layers: Flights<LayerKey, u64, LayerItem>,
    pub(crate) layer_slots: Semaphore,
    images: Flights<(String, Digest), Progress, ImageItem>,
    /// Layers of images that are being pulled.
    pub(crate) busy: Mutex<HashMap<Digest, usize>>,
    pins: Pins,
    /// Held shared while something is said to be in use, exclusively while what is not is removed.
    pub(crate) removal: tokio::sync::RwLock<()>,
}

impl Images {
    /// Opens the images below a directory, which is made when absent. Removes what an earlier process left half
    /// done. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(directory: &Path, options: Options) -> Result<Images, Error> {
        let store = Arc::new(Store::open(directory)?);
        let registry = Arc::new(Registry::new(options.policy.clone(), options.pace.clone()));
        let platform = options.platform.clone().unwrap_or_else(Platform::here);
        Ok(Images(Arc::new(Shared {
            store,
            registry,
            options,
            platform,
            layers: Flights::new(),
            layer_slots: Semaphore::new(LAYERS_AT_ONCE),
            images: Flights::new(),
            busy: Mutex::default(),
            pins: Pins::default(),
            removal: tokio::sync::RwLock::default(),
        })))
    }

    /// Makes an image ready to be run. `heard` hears how far it is.
    ///
    /// A name is asked for at its registry every time, with the request's own credentials: a tag may have moved,
    /// and who may not have an image does not get it because somebody else had. An image by digest that the
    /// same credentials were shown before needs no registry, and any needs none while it does not answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pull(
        &self,
        request: &Request,
        heard: impl FnMut(Progress),
    ) -> Result<Image, Error> {
        let who = fingerprint(request.credentials.as_ref());
        if request.reference.digest().is_some()
            && let Some(image) = self.known(&request.reference, who).await
        {
            return Ok(image);
        }
        let shared = Arc::clone(&self.0);
        let wanted = request.clone();
        let start = |reporter| async move { pull::image(shared, wanted, reporter).await };
        let key = (request.reference.to_string(), who);
        match self.0.images.join(key, start, heard).await {
            Ok(item) => self.hand_out(item).await,
            Err(error @ Error::Unavailable(_)) => match self.known(&request.reference, who).await {
                Some(image) => {
                    let image_name = request.reference.to_string();
                    tracing::warn!(image = image_name, %error, "the registry was not heard; what is kept is run");
                    Ok(image)
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// An image that was pulled under this name with these credentials before.
    async fn known(&self, reference: &Reference, who: Digest) -> Option<Image> {
        let name = self.0.store.name(reference)?;
        if !name.shown_to.contains(&who) {
            return None;
        }
        let item = self.0.store.image(&name.digest)?;
        self.hand_out(item).await.ok()
    }

    async fn hand_out(&self, item: ImageItem) -> Result<Image, Error> {
        let pin = Pin::new(&self.0.pins, item.digest);
        // Pinned first, then looked at: a collection of the meantime is noticed.
        let _still = self.0.removal.read().await;
        if self.0.store.image(&item.digest).is_none() {
            return Err(Error::Unavailable("the image was removed just now".to_owned()));
        }
        self.0.store.touch(&item.digest);
        Ok(Image {
            digest: item.digest,
            layers: self.0.store.trees(&item),
            bytes: item.bytes,
            config: item.config,
            _pin: pin,
        })
    }

    /// Removes images that nobody uses and that the disk has no room for, or that are old. `used` are those
    /// that were handed out once and are still in use.
    ///
    /// # Errors
    /// The disk's; what was removed until then is gone.
    pub async fn collect(&self, used: &HashSet<Digest>) -> Result<Collected, Error> {
        let store = Arc::clone(&self.0.store);
        self.collect_when(used, move || store.disk_used()).await
    }

    pub(crate) async fn collect_when(
        &self,
        used: &HashSet<Digest>,
        full: impl Fn() -> Result<f64, Error> + Send + 'static,
    ) -> Result<Collected, Error> {
        let _alone = self.0.removal.write().await;
        let mut used = used.clone();
        used.extend(self.0.pins.lock().unwrap_or_else(PoisonError::into_inner).keys().copied());
        let busy: HashSet<Digest> =
            self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let store = Arc::clone(&self.0.store);
        let marks = self.0.options.watermarks.clone();
        blocking(move || store.collect(&used, &busy, &marks, full)).await
    }

    /// What is kept.
    ///
    /// # Errors
    /// The disk's.
    pub fn kept(&self) -> Result<Vec<Kept>, Error> {
        let names = self.0.store.names()?;
        let mut kept: Vec<Kept> = self
            .0
            .store
            .images()?
            .into_iter()
            .map(|image| Kept {
                digest: image.digest,
                names: names
                    .iter()
                    .filter(|name| name.digest == image.digest)
                    .map(|name| name.reference.clone())
                    .collect(),
                bytes: image.bytes,
            })
            .collect();
        kept.sort_by(|a, b| a.names.cmp(&b.names).then(a.digest.cmp(&b.digest)));
        Ok(kept)
    }
}

/// Runs something that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Local(format!("a worker died: {error}"))))
}
