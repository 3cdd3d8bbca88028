//! Container images: how one is pulled from a registry, verified, unpacked and kept on a machine. What a task
//! does with an image is the agent's affair, and the container that runs on it the shim's.
//!
//! ```text
//! Reference ─► registry (auth, redirects, resume) ─► hash ─► decompress ─► hash ─► unpack ─► store
//!                                  several layers at once, each unpacked once
//! ```
//!
//! Nothing here trusts what a registry sends: sizes and digests are checked while reading, paths are resolved
//! by the kernel inside the layer's own directory, and every bound is in [`Limits`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod credentials;
mod digest;
mod download;
mod error;
mod flight;
mod images;
mod layer;
mod limits;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod tar;
mod unpack;

pub use config::ImageConfig;
pub use credentials::{Credentials, for_registry};
pub use digest::Digest;
pub use download::{digest_of, extract};
pub use error::Error;
pub use images::{Image, Images, Options, Progress, Request};
pub use limits::Limits;
pub use manifest::Platform;
pub use reference::Reference;
pub use registry::{Pace, Policy};
pub use store::{Collected, Kept, Watermarks};
