//! The whole circle over real processes: one module per thing that is promised.
#![allow(clippy::unwrap_used)]

mod allocation;
mod apart;
mod bad_input;
mod by_hand;
mod definitions;
mod encryption;
mod etcd;
mod given;
mod gpus;
mod groups;
mod isolation;
mod lan;
mod leaders;
mod networks;
mod offers;
mod pods;
mod recovery;
mod seeing_in;
mod sessions;
mod shares;
mod task_token;
mod terminals;
mod tidiness;
