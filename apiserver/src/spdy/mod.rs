//! SPDY/3.1 as kubectl and its relatives speak it: many streams over one connection.
//!
//! `frame` and `headers` are pure codecs; `session` runs one connection, as its server. What the
//! streams mean is not known here. The protocol is long dead elsewhere, but every kubectl before
//! 1.30 runs commands over it, and every kubectl forwards ports over it.

mod dictionary;
mod frame;
mod headers;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use session::{Incoming, ReadHalf, Session, WriteHalf, serve};
