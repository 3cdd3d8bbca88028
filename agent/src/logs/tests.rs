#![allow(clippy::unwrap_used)]
use super::*;
use axum::http::Request;
use futures::StreamExt;
use tower::ServiceExt;

use crate::ledger::Entry;

fn begun(ledger: &Ledger) {
    ledger
        .write(&Entry {
            uid: "u-1".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            boot_id: "b".to_owned(),
            ..Entry::default()
        })
        .unwrap();
}

async fn ask(ledger: &Ledger, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router(ledger.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn output_is_served_whole_or_from_its_tail() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    begun(&ledger);
    let task = ledger.state_dir("u-1");
    std::fs::write(task.log(Output::Stdout), "one\ntwo\n").unwrap();
    std::fs::write(task.log(Output::Stderr), "oh\n").unwrap();
    for (query, want) in [
        ("", "one\ntwo\noh\n"),
        ("?stream=stdout", "one\ntwo\n"),
        ("?stream=Stderr", "oh\n"),
        ("?stream=stdout&tailLines=1", "two\n"),
        ("?follow=false&tailLines=1", "oh\n"),
        ("?follow=false&tailLines=2", "two\noh\n"),
        ("?limitBytes=5", "one\nt"),
    ] {
        let (status, body) = ask(&ledger, &format!("/logs/shop/web/u-1{query}")).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, want), "{query}");
    }
}

#[tokio::test]
async fn what_was_removed_to_make_room_is_said_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    begun(&ledger);
    let task = ledger.state_dir("u-1");
    for log in ["stdout.log", "stdout.log.1", "stderr.log", "exit.json"] {
        std::fs::write(task.path().join(log), "one\n").unwrap();
    }
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    ledger.make_sandbox("u-1").unwrap();
    std::os::unix::fs::symlink(&outside, ledger.sandbox("u-1").join("link")).unwrap();
    assert_eq!(ledger.collected("u-1"), None);
    // Twice: an agent that died over it does it again.
    for _ in 0..2 {
        ledger.collect("u-1", "2026-01-01T00:00:00Z when 93 % were used").unwrap();
    }
    let (status, said) = ask(&ledger, "/logs/shop/web/u-1").await;
    assert_eq!(status, StatusCode::GONE);
    assert!(said.contains("removed at 2026-01-01T00:00:00Z when 93 % were used"), "{said}");
    assert!(outside.join("kept").exists() && !ledger.sandbox("u-1").exists());
    let mut left: Vec<_> = std::fs::read_dir(task.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["collected", "entry.copy", "entry.json", "exit.json"]);
    assert!(ledger.entry("u-1").is_some() && ledger.has_ended("u-1"));
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    begun(&ledger);
    for (path, want) in [
        ("/logs/shop/web/u-2", 404),
        ("/logs/other/web/u-1", 404),
        ("/logs/shop/web/..%2f..%2fx", 400),
        ("/logs/shop/web/u-1?stream=both", 400),
        ("/logs/shop/web/u-1?tailLines=-1", 400),
        ("/logs/shop/web/u-1?sinceTime=today", 400),
        ("/healthz", 200),
    ] {
        assert_eq!(ask(&ledger, path).await.0, want, "{path}");
    }
}

#[tokio::test]
async fn following_ends_with_the_task_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    begun(&ledger);
    let request = Request::get("/logs/shop/web/u-1?follow=true").body(Body::empty()).unwrap();
    let response = router(ledger.clone()).oneshot(request).await.unwrap();
    let mut pieces = response.into_body().into_data_stream();
    let task = ledger.state_dir("u-1");
    std::fs::write(task.log(Output::Stdout), "one\n").unwrap();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "one\n");
    std::fs::write(task.log(Output::Stderr), "two\n").unwrap();
    std::fs::write(task.exit_json(), "{}").unwrap();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "two\n");
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn a_log_without_its_beginning_says_so_first() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    begun(&ledger);
    let task = ledger.state_dir("u-1");
    std::fs::write(task.log(Output::Stdout), "ne\ntwo").unwrap();
    std::fs::write(task.log(Output::Stderr), "oh\n").unwrap();
    std::fs::write(task.path().join("stdout.log.gone"), "52428800\n").unwrap();
    std::fs::write(task.path().join("stderr.log.gone"), "7\n").unwrap();
    let of = |name: &str, bytes: u64| {
        format!(
            "[commonage: the first {bytes} bytes of {name} are gone (kept: 5 files of 10 MiB)]\n"
        )
    };
    let (stdout, stderr) = (of("stdout", 52_428_800), of("stderr", 7));
    for (query, want) in [
        ("", format!("{stdout}{stderr}ne\ntwooh\n")),
        ("?stream=stdout", format!("{stdout}ne\ntwo")),
        ("?stream=stderr", format!("{stderr}oh\n")),
        ("?stream=stdout&tailLines=1", "two".to_owned()),
    ] {
        let (status, body) = ask(&ledger, &format!("/logs/shop/web/u-1{query}")).await;
        assert_eq!((status, body), (StatusCode::OK, want), "{query}");
    }
}
