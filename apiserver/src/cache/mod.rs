//! The watch cache: every object of every kind in memory, and every change sent on once serialized.

mod event;

pub use event::{Chunk, EventKind, Watch, WatchEvent};
