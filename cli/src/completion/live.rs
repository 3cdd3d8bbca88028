//! Names that only the cluster knows, asked for while somebody waits at a prompt.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use kube::config::Kubeconfig;
use serde_json::Value;

use crate::{
    args::Global,
    errors::Result,
    kinds::{self, Kinds},
    kubeconfig::{self, Cluster},
};

/// For all of it: what takes longer is in the way of typing.
const BUDGET: Duration = Duration::from_millis(300);
/// Of one kind.
const NAMES_MAX: usize = 500;

/// Which names.
pub(super) enum Names {
    Kinds,
    Contexts,
    /// Of the objects of a kind.
    Of(String),
}

/// The names that the cluster has within the budget, if any. What goes wrong is not told: nobody has asked yet.
pub(super) fn ask(names: &Names, of: [Option<&str>; 3]) -> Vec<String> {
    let [kubeconfig, context, namespace] = of.map(|value| value.map(str::to_owned));
    let global =
        Global { kubeconfig: kubeconfig.map(PathBuf::from), context, namespace, no_input: true };
    let kind = match names {
        Names::Contexts => return contexts(&global),
        Names::Kinds => None,
        Names::Of(kind) => Some(kind.clone()),
    };
    let (answer, answered) = mpsc::sync_channel(1);
    // Not waited for: a look-up of a host name cannot be given up.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        let found = runtime.block_on(fetch(&global, kind.as_deref()));
        let _ = answer.send(found.unwrap_or_default());
    });
    answered.recv_timeout(BUDGET).unwrap_or_default()
}

async fn fetch(global: &Global, kind: Option<&str>) -> Result<Vec<String>> {
    let cluster = Cluster::connect(global).await?;
    let mut kinds = Kinds::of(&cluster.client);
    let Some(kind) = kind else { return kinds.own().await };
    let kind = kinds.find(kind).await?;
    let path = format!("{}?limit={NAMES_MAX}", kind.path(Some(&cluster.namespace)));
    let list: Value = kinds::get(&cluster.client, &path, "").await?;
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |object: &Value| object["metadata"]["name"].as_str().map(str::to_owned);
    Ok(items.iter().filter_map(name).collect())
}

fn contexts(global: &Global) -> Vec<String> {
    let read = kubeconfig::find(global).ok().map(Kubeconfig::read_from);
    let contexts = read.and_then(Result::ok).map(|read| read.contexts);
    contexts.into_iter().flatten().map(|context| context.name).collect()
}
