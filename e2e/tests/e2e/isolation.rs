//! Limits are enforced, and a container changes nothing outside its sandbox.

use commonage_e2e::Cluster;

fn run(cluster: &Cluster, name: &str, more: &[&str], script: &str) -> commonage_e2e::Output {
    let mut arguments = vec!["run", "--name", name];
    arguments.extend(more);
    arguments.extend(["--", "sh", "-c", script]);
    cluster.cmn(&arguments)
}

#[test]
fn memory_beyond_the_limit_is_an_oom_kill_and_said_so() {
    let cluster = Cluster::start();
    // tail keeps what has no end of line in memory.
    run(&cluster, "hog", &["--cpu", "0.5", "--memory", "32Mi"], "tail /dev/zero");
    assert_eq!(cluster.field("task/hog", ".status.state"), "Failed");
    assert_eq!(cluster.field("task/hog", ".status.reason"), "OomKilled");
}

#[test]
fn cpu_beyond_the_limit_is_throttled() {
    let cluster = Cluster::start();
    // Burns for two seconds of wall time, then says how much CPU time it got, in ticks.
    let script = "end=$(($(date +%s%N) + 2000000000)); while [ $(date +%s%N) -lt $end ]; do :; done; cat /proc/self/stat >/dev/null; times";
    let printed = run(&cluster, "burner", &["--cpu", "0.2", "--memory", "32Mi"], script).ok();
    let seconds: f64 = printed
        .split_whitespace()
        .filter_map(|time| {
            let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        })
        .sum();
    // 0.2 of two seconds is 0.4; generous, because the clock runs from before the container does.
    assert!((0.05..1.0).contains(&seconds), "used {seconds} s of CPU: {printed}");
}

#[test]
fn the_host_can_be_read_but_not_written() {
    let cluster = Cluster::start();
    let script = "cat /etc/hostname; touch /etc/x 2>&1; touch /usr/x 2>&1; echo here > $COMMONAGE_SANDBOX/y && cat $COMMONAGE_SANDBOX/y";
    let printed = run(&cluster, "writer", &["--cpu", "0.1", "--memory", "32Mi"], script).ok();
    assert_eq!(printed.matches("Read-only file system").count(), 2, "{printed}");
    assert!(printed.contains("here"), "{printed}");
    assert!(!std::path::Path::new("/etc/x").exists() && !std::path::Path::new("/usr/x").exists());
}

#[test]
fn a_container_sees_its_own_processes_only() {
    let cluster = Cluster::start();
    let printed = run(
        &cluster,
        "looker",
        &["--cpu", "0.1", "--memory", "32Mi"],
        "ls /proc | grep -c '^[0-9]'",
    )
    .ok();
    let processes: u32 = printed.trim().parse().unwrap();
    assert!(processes < 10, "{processes} processes seen");
}

#[test]
fn a_task_that_fills_its_disk_is_ended() {
    let cluster = Cluster::start();
    let yaml = "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {name: hog}\nspec: {resources: {cpu: 100m, memory: 64Mi, \
                disk: 8Mi}, killPolicy: {gracePeriodSeconds: 0}, container: {command: [sh, -c, 'head -c 30000000 \
                /dev/zero > /sandbox/big; sleep 100000']}}\n";
    cluster
        .apply(
            &(yaml.to_owned()
                + "---\n"
                + &yaml.replace("hog", "frugal").replace("30000000", "3000000")),
        )
        .ok();
    cluster.wait_for_state("hog", &["Failed"]);
    assert_eq!(cluster.field("task/hog", ".status.reason"), "DiskLimitExceeded");
    let message = cluster.field("task/hog", ".status.message");
    assert!(message.ends_with("and may have 8.0 MiB of disk"), "{message}");
    assert_eq!(cluster.field("task/frugal", ".status.state"), "Running");
}

#[test]
fn a_sandbox_is_listed_while_and_after_its_task_runs() {
    let cluster = Cluster::start();
    let script = "mkdir out; echo hello > out/a.txt; ln -s /etc/passwd link; until [ -e go ]; do sleep 0.1; done";
    run(&cluster, "writer", &["--detach", "--cpu", "0.1", "--memory", "32Mi"], script).ok();
    commonage_e2e::eventually("the file", || {
        let listed = cluster.cmn(&["sandbox", "ls", "writer", "out", "-o", "name"]);
        if listed.stdout == "a.txt\n" { Ok(()) } else { Err(format!("{listed:?}")) }
    });
    // The task may end, and this command with it, before the command's own end is told.
    let _ = cluster.cmn(&["exec", "writer", "--", "touch", "/sandbox/go"]);
    cluster.wait_for_state("writer", &["Finished"]);
    let listed = cluster.cmn(&["sandbox", "ls", "writer"]).ok();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("MODE"), "{listed}");
    assert!(lines.iter().any(|l| l.ends_with("out/") && l.starts_with("drwxr-xr-x")), "{listed}");
    assert!(lines.iter().any(|l| l.ends_with("link -> /etc/passwd")), "{listed}");
    let refused = cluster.cmn(&["sandbox", "ls", "writer", "link"]).refused();
    assert!(refused.contains("leads out of the sandbox"), "{refused}");
    let missing = cluster.cmn(&["sandbox", "ls", "writer", "nothing"]).refused();
    assert!(missing.contains("nothing of that name"), "{missing}");
    let unknown = cluster.cmn(&["sandbox", "ls", "nobody"]).refused();
    assert!(unknown.contains("not found"), "{unknown}");
}
