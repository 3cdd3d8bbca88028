//! The conformance suite: what a Kubernetes API server answers, request by request.
//!
//! The cases are the YAML files in `cases/`; `README.md` says how to write one. This target reads
//! them, sends them and prints what differs. It knows no kind and no rule of the API itself.
//! `CONFORMANCE_KUBECONFIG=FILE` names the server; without it one of ours is started in process.
#![allow(clippy::unwrap_used)]

mod combine;
mod compare;
mod run;
mod suite;

use std::path::{Path, PathBuf};

use commonage_apiserver::auth::UserInfo;
use commonage_apiserver::{ApiServer, Config};
use commonage_controllers::Settings;
use futures::StreamExt;
use run::Runner;
use suite::Subject;
use tokio_util::sync::CancellationToken;

/// Subjects that run at once: some of their cases wait for seconds.
const SUBJECTS_AT_ONCE: usize = 4;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/cases")
}

/// All subjects, in the order of their names.
fn subjects() -> Vec<Subject> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().map(|file| Subject::read(file)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_as_kubernetes_answers_it() {
    let dir = tempfile::tempdir().unwrap();
    let given = std::env::var_os("CONFORMANCE_KUBECONFIG").map(PathBuf::from);
    let ours = match given {
        Some(_) => None,
        None => Some(ApiServer::start(Config::for_tests(dir.path())).await.unwrap()),
    };
    let kubeconfig = match (&given, &ours) {
        (Some(file), _) => file.clone(),
        (None, ours) => ours.as_ref().unwrap().admin_kubeconfig_path().to_owned(),
    };
    // Garbage collection and the end of namespaces are their business. (Without the authority's
    // ConfigMaps: the cases count what they have made.)
    let stop = CancellationToken::new();
    let controllers = ours.as_ref().map(|api| {
        let client = api.client_for(UserInfo::controllers());
        tokio::spawn(commonage_controllers::run(client, Settings::default(), stop.clone()))
    });
    let only = std::env::var("CONFORMANCE_ONLY").unwrap_or_default();
    let runner = Runner::new(&kubeconfig, only).await;
    // Definitions come alone: they change what discovery says, and others hold it to its hash.
    let (alone, together): (Vec<_>, Vec<_>) =
        subjects().into_iter().partition(|subject| subject.name == "definitions");
    let mut outcomes: Vec<run::Outcome> = futures::stream::iter(together)
        .map(|subject| {
            let runner = &runner;
            async move { runner.subject(&subject).await }
        })
        .buffered(SUBJECTS_AT_ONCE)
        .collect()
        .await;
    for subject in alone {
        outcomes.push(runner.subject(&subject).await);
    }
    let (mut passed, mut failed) = (0, 0);
    for outcome in &outcomes {
        passed += outcome.passed;
        failed += outcome.differences.len();
        outcome.differences.iter().for_each(|difference| println!("{difference}\n"));
        outcome.pending.iter().for_each(|pending| println!("pending: {pending}"));
        if let Some(why) = &outcome.skipped {
            println!("{}: skipped, {why}", outcome.subject);
        }
        println!(
            "{}: {} cases as they should be, {} not",
            outcome.subject,
            outcome.passed,
            outcome.differences.len()
        );
    }
    stop.cancel();
    if let Some(controllers) = controllers {
        controllers.await.unwrap().unwrap();
    }
    if let Some(ours) = ours {
        ours.shutdown().await;
    }
    assert_eq!(failed, 0, "{failed} cases differ, {passed} do not");
}
