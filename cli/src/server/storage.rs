//! Where objects are kept and how: the options of the store, with kube-apiserver's names.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use commonage_apiserver::server::{EtcdTlsFiles, Storage, StoreKind};

use crate::wait;

/// Where objects are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StorageArgs {
    /// `embedded`, or `etcd://HOST:PORT,HOST:PORT`: each member of the cluster, in one or in several
    /// of these options
    #[arg(long = "store", value_name = "STORE", default_value = "embedded")]
    stores: Vec<Store>,
    /// The authority of etcd's certificates; with it, etcd is spoken to by TLS
    #[arg(long, value_name = "PEM")]
    etcd_cafile: Option<PathBuf>,
    /// The certificate that etcd is shown
    #[arg(long, value_name = "PEM", requires_all = ["etcd_keyfile", "etcd_cafile"])]
    etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "PEM", requires_all = ["etcd_certfile", "etcd_cafile"])]
    etcd_keyfile: Option<PathBuf>,
    /// How long Events are kept after they were last written; 0s keeps them
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = wait::duration)]
    event_ttl: Duration,
    /// How often the history of objects is forgotten, but for the last interval; 0s keeps it
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = wait::duration)]
    etcd_compaction_interval: Duration,
    /// Which kinds are encrypted in the store, and with which keys: an EncryptionConfiguration of
    /// apiserver.config.k8s.io/v1 with secretbox, aesgcm and identity. Read at the start
    #[arg(long, value_name = "YAML")]
    encryption_provider_config: Option<PathBuf>,
}

impl StorageArgs {
    pub(crate) fn store(&self) -> Store {
        Store::all(&self.stores)
    }

    pub(crate) fn kind(&self) -> StoreKind {
        let scheme = if self.etcd_cafile.is_some() { "https" } else { "http" };
        match self.store() {
            Store::Embedded => StoreKind::Embedded,
            Store::Etcd(members) => StoreKind::Etcd(
                members.iter().map(|member| format!("{scheme}://{member}")).collect(),
            ),
        }
    }

    pub(crate) fn config(self) -> Storage {
        let identity = self.etcd_certfile.zip(self.etcd_keyfile);
        Storage {
            etcd_tls: self.etcd_cafile.map(|ca| EtcdTlsFiles { ca, identity }),
            event_ttl: self.event_ttl,
            compaction_interval: self.etcd_compaction_interval,
            encryption_config: self.encryption_provider_config,
        }
    }
}

/// Where the API server keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Embedded,
    /// `HOST:PORT` of each member.
    Etcd(Vec<String>),
}

impl Store {
    /// Of an option that may be given more than once: all members of one etcd.
    pub(crate) fn all(stores: &[Store]) -> Store {
        let members: Vec<String> = stores
            .iter()
            .flat_map(|store| match store {
                Store::Embedded => &[][..],
                Store::Etcd(members) => members,
            })
            .cloned()
            .collect();
        if members.is_empty() { Store::Embedded } else { Store::Etcd(members) }
    }
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected `embedded` or `etcd://HOST:PORT,HOST:PORT`".to_owned();
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let members = text.strip_prefix("etcd://").ok_or_else(wrong)?;
        let members: Vec<String> =
            members.split(',').map(|member| member.trim_end_matches('/').to_owned()).collect();
        match members.iter().any(String::is_empty) {
            true => Err(wrong()),
            false => Ok(Self::Etcd(members)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stores_are_named() {
        let etcd = |members: &[&str]| Store::Etcd(members.iter().map(|&m| m.to_owned()).collect());
        assert_eq!("embedded".parse::<Store>().unwrap(), Store::Embedded);
        assert_eq!("etcd://h:1/".parse::<Store>().unwrap(), etcd(&["h:1"]));
        assert_eq!("etcd://h:1,i:2".parse::<Store>().unwrap(), etcd(&["h:1", "i:2"]));
        for wrong in ["etcd://", "etcd://h:1,,i:2", "sqlite"] {
            assert!(wrong.parse::<Store>().is_err(), "{wrong}");
        }
    }
}
