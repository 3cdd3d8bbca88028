//! `cmn up`: being composed.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr};

use clap::Args as ClapArgs;

use crate::errors::{Failure, Result};

pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:7443";

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API server listens
    #[arg(long, value_name = "IP:PORT", default_value = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// `embedded`, or `etcd://HOST:PORT`
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    store: Store,
}

/// Where the API server keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Embedded,
    /// `HOST:PORT`.
    Etcd(String),
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("etcd://") {
            Some(address) if !address.is_empty() => {
                Ok(Self::Etcd(address.trim_end_matches('/').to_owned()))
            }
            None if text == "embedded" => Ok(Self::Embedded),
            _ => Err("expected `embedded` or `etcd://HOST:PORT`".to_owned()),
        }
    }
}

pub(crate) fn run(_args: Args) -> Result<ExitCode> {
    Err(Failure::new("not yet"))
}
