//! Who owns which field of an object: server-side apply, and the `managedFields` of every write.
//!
//! Pure functions over JSON trees: the schema of a kind is compiled once into [`Types`], then
//! [`record`] notes what a create, an update or a patch changed ([`record_text`] and [`record_new_text`]
//! without making trees of what is known already), and [`apply`] merges what an
//! applier wants into the live object. Nothing here knows requests, storage or the clock; the
//! object's other rules (defaults, validation, what a subresource may change) are the caller's.
#![forbid(unsafe_code)]

mod apply;
mod entries;
mod error;
mod fields;
mod form;
mod last_applied;
mod path;
mod record;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod walk;

pub use apply::{Applied, apply};
pub use entries::{Writer, differ_in_time_only};
pub use error::{ApplyError, Conflict};
pub use record::record;
pub use text::{Unusual, record_new_text, record_text};
pub use types::Types;

/// Update entries that an object keeps; the oldest beyond are joined into one.
pub const UPDATE_ENTRIES_MAX: usize = 10;
