//! `cmn delete`: objects by name, by label, all of them, or those of files; waits until they are gone.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args as ClapArgs;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::Value;

use crate::{
    apply,
    errors::{Failure, Result, count, exit},
    follow, get,
    kinds::{Kind, Kinds, request},
    kubeconfig::Cluster,
    output,
};

/// Before somebody who waits is told what for.
const TELL_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn delete task hello
  cmn delete task/hello queue/batch
  cmn delete -f examples/nginx.yaml
  cmn delete tasks -l app=web --yes")]
pub(crate) struct Args {
    /// A kind and names, or KIND/NAME
    #[arg(value_name = "KIND [NAME]", required_unless_present = "files")]
    what: Vec<String>,
    /// Delete the objects of this file, directory, or `-`
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "what")]
    files: Vec<PathBuf>,
    /// All objects of the kind in the namespace with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Return at once; the objects go when they can
    #[arg(long)]
    no_wait: bool,
    /// Say nothing about objects that do not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Seconds between the first signal and the kill; the task's own policy if not given
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

struct Victim {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Victim {
    fn title(&self) -> String {
        format!("{}/{}", self.kind.qualified(), self.name)
    }
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let victims = victims(&args, cluster).await?;
    if victims.is_empty() {
        output::note("nothing to delete");
        return Ok(ExitCode::SUCCESS);
    }
    confirm(&args, cluster, &victims)?;
    let mut going = Vec::new();
    let mut failed = None;
    for victim in victims {
        match delete(&args, cluster, &victim).await {
            Ok(Some(uid)) => going.push((victim, uid)),
            Ok(None) => output::line(&format!("{} deleted", victim.title()))?,
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    crate::errors::report(Err(earlier));
                }
            }
        }
    }
    for (victim, uid) in going {
        if args.no_wait {
            output::line(&format!("{} deletion begun", victim.title()))?;
            continue;
        }
        match follow::unless_interrupted(until_gone(cluster, &victim, &uid)).await {
            Ok(result) => result?,
            Err(follow::Interrupted) => {
                let again = format!("cmn wait {}/{} --for=delete", victim.kind.plural, victim.name);
                return Err(follow::resume_with(&[&again]));
            }
        }
        output::line(&format!("{} deleted", victim.title()))?;
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn victims(args: &Args, cluster: &Cluster) -> Result<Vec<Victim>> {
    let mut kinds = Kinds::of(&cluster.client);
    let mut victims = Vec::new();
    if !args.files.is_empty() {
        for document in apply::read(&args.files)? {
            let kind = document.kind(&mut kinds).await?;
            let (namespace, name) =
                (document.namespace(cluster).to_owned(), document.name()?.to_owned());
            victims.push(Victim { kind, namespace, name });
        }
        return Ok(victims);
    }
    for selection in get::select(&mut kinds, &args.what).await? {
        let by_rule = args.all || args.selector.is_some();
        if selection.names.is_empty() != by_rule {
            let plural = &selection.kind.plural;
            return Err(Failure::new(format!(
                "which {plural}? Either names, or --selector, or --all"
            ))
            .hint(format!("see what there is: `cmn get {plural}`")));
        }
        let names = match by_rule {
            true => listed(args, cluster, &selection.kind).await?,
            false => selection.names,
        };
        let victim = |name| Victim {
            kind: selection.kind.clone(),
            namespace: cluster.namespace.clone(),
            name,
        };
        victims.extend(names.into_iter().map(victim));
    }
    Ok(victims)
}

async fn listed(args: &Args, cluster: &Cluster, kind: &Kind) -> Result<Vec<String>> {
    let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    let list = kind.api(&cluster.client, &cluster.namespace).list(&params).await;
    let list =
        list.map_err(|error| Failure::api(format!("cannot list {}", kind.plural), &error))?;
    Ok(list.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

/// One object that was named takes only itself along; a rule, or something that others depend on,
/// is worth a question.
fn confirm(args: &Args, cluster: &Cluster, victims: &[Victim]) -> Result<()> {
    let takes_others = |victim: &&Victim| {
        matches!(victim.kind.kind.as_str(), "Framework" | "Namespace" | "Agent" | "Queue")
    };
    let severe = victims.iter().find(takes_others);
    if args.yes || (severe.is_none() && !args.all && args.selector.is_none()) {
        return Ok(());
    }
    if !cluster.may_ask {
        // A script that names an object means it; a script that names a rule says so.
        let named = !args.all && args.selector.is_none();
        return match named && !std::io::stdin().is_terminal() {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "{} would go, and nobody can be asked",
                count(victims.len(), "object")
            ))
            .hint("add --yes")),
        };
    }
    output::note(&format!("On {} this deletes:", cluster.url));
    for victim in victims {
        let others = if takes_others(&victim) { ", and what depends on it" } else { "" };
        output::note(&format!("  {}{others}", victim.title()));
    }
    let (question, wanted) = match severe {
        Some(victim) => (format!("Type {} to go on:", victim.name), victim.name.as_str()),
        None => ("Go on? [y/N]".to_owned(), "y"),
    };
    match output::ask(&question)? == wanted {
        true => Ok(()),
        false => Err(Failure::new("nothing was deleted")),
    }
}

/// The uid of the object if it is still there for a while.
async fn delete(args: &Args, cluster: &Cluster, victim: &Victim) -> Result<Option<String>> {
    let options = match args.grace_period {
        Some(seconds) => {
            serde_json::json!({"gracePeriodSeconds": seconds}).to_string().into_bytes()
        }
        None => Vec::new(),
    };
    let path = victim.kind.object_path(&victim.namespace, &victim.name);
    match cluster.client.request::<Value>(request("DELETE", &path, options)).await {
        // The object itself comes back while finalizers hold it, a Status when it is gone.
        Ok(answer) if answer["metadata"]["deletionTimestamp"].is_string() => {
            let finalizers =
                answer["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
            let uid = answer["metadata"]["uid"].as_str().filter(|_| finalizers);
            Ok(uid.map(str::to_owned))
        }
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 && args.ignore_not_found => Ok(None),
        Err(error) => Err(Failure::api(format!("{} was not deleted", victim.title()), &error)),
    }
}

async fn until_gone(cluster: &Cluster, victim: &Victim, uid: &str) -> Result<()> {
    let api: Api<DynamicObject> = victim.kind.api(&cluster.client, &victim.namespace);
    let gone = await_condition(api, &victim.name, is_deleted(uid));
    let mut gone = std::pin::pin!(gone);
    let result = match tokio::time::timeout(TELL_AFTER, &mut gone).await {
        Ok(result) => result,
        Err(_) => {
            output::note(&format!("{} is being deleted; waiting until it is gone", victim.title()));
            gone.await
        }
    };
    result.map(|_| ()).map_err(|error| {
        Failure::new(format!(
            "cannot see whether {} is gone: {}",
            victim.title(),
            crate::errors::chain(&error)
        ))
        .exit(exit::UNREACHABLE)
    })
}
