//! The API server: a generic Kubernetes-style API engine over resource definitions.
//!
//! Owns everything from the socket to the store: authentication, routing, admission, the watch
//! cache and the documents that describe the API. Nobody else talks to the store. There is never a
//! handler per kind: a kind is a [`resource::ResourceDef`] and, where it has rules of its own, a
//! strategy under `kinds/`.
#![forbid(unsafe_code)]

pub mod audit;
pub mod auth;
pub mod backup;
pub mod builtin;
pub mod cache;
pub mod discovery;
mod encryption;
pub mod engine;
mod histogram;
pub mod http;
pub mod jsonpath;
pub mod kinds;
pub mod meta;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod proxy;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod server;
mod spdy;
pub mod status;
pub mod strategy;
mod streams;
pub mod table;
mod timed_store;

pub use server::{ApiServer, Config};
