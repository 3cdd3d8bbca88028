//! The whole circle over real processes: one module per thing that is promised.
#![allow(clippy::unwrap_used)]

mod apart;
mod bad_input;
mod by_hand;
mod etcd;
mod isolation;
mod offers;
mod pods;
mod recovery;
mod tidiness;
