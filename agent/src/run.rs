//! Wiring: configuration → parts → serve → drain.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use commonage_image::Images;
use commonage_schemas::resources::Ranges;
use jiff::SignedDuration;
use nix::fcntl::{Flock, FlockArg};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::detect::{self, DEFAULT_PORTS};
use crate::driver::{Driver, OnShutdown, Parts};
use crate::events::Events;
use crate::group;
use crate::ledger::Ledger;
use crate::prepare::Workshop;
use crate::register::{Registration, labels_of, status_of};
use crate::runtime::{Shims, end_orphans};
use crate::serve::Endpoint;
use crate::session::Sessions;
use crate::stats::Stats;
use crate::task::spec::Site;

/// Runs an agent until `shutdown`.
///
/// # Errors
/// What keeps it from starting (the data directory is in use or can't be written, the port is
/// taken, the machine can't be read), and the death of one of its parts. An API server that does
/// not answer is no error: it is waited for.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Config {
        name,
        data_dir,
        client,
        server,
        identity,
        listen,
        advertise,
        labels,
        overrides,
        zygote,
        cgroup_parent,
        images,
        sandboxes,
        networks,
        gpus,
        leave,
        lease_interval,
        keep_deleted,
        kill_tasks_on_shutdown,
    } = config;
    let ledger = Ledger::open(&data_dir)
        .with_context(|| format!("open the ledger in {}", data_dir.display()))?;
    let data_dir = data_dir.canonicalize().context("resolve the data directory")?;
    let _lock = lock(&data_dir)?;
    let machine = detect::detect(&data_dir).context("look at the machine")?;
    let endpoint =
        Endpoint::bind(listen, &identity).await.context("set up the agent's endpoint")?;
    let host = advertise.unwrap_or_else(|| host_of(listen, &machine.hostname));
    let ports = match overrides.ports.clone() {
        Some(ports) => ports,
        None => DEFAULT_PORTS.parse::<Ranges>().context("default ports")?,
    };

    let home = data_dir.join("agent");
    crate::prepare::clean(&home);
    let images = {
        let directory = home.join("images");
        tokio::task::spawn_blocking(move || Images::open(&directory, images)).await?
    }
    .context("open the images")?;
    let workshop = Workshop {
        client: client.clone(),
        images: images.clone(),
        events: Events::new(client.clone(), &name),
        agent: name.clone(),
        ca_pem: identity.ca_pem.clone(),
        networks,
        directory: home,
    };
    let registration = Registration {
        images: Some(images),
        gpus: gpus.clone(),
        client: client.clone(),
        labels: labels_of(&machine, gpus.as_ref(), &labels),
        status: status_of(
            &machine,
            &overrides,
            &ports,
            &host,
            with_port(&host, endpoint.address.port()),
        ),
        lease_interval,
        data_dir: data_dir.clone(),
        sandboxes,
        returned: Arc::default(),
        listen_anew: Arc::default(),
        changed: Arc::default(),
        name: name.clone(),
    };
    let group = group::of(&cgroup_parent, &name, &data_dir);
    let forsaken = group.clone();
    tokio::task::spawn_blocking(move || end_orphans(&forsaken)).await?;
    let shims = Shims::new(zygote, ledger.clone(), &machine.boot_id, &group);
    let driver = Driver::new(Parts {
        client,
        site: Site { agent: name, host, data_dir, group: group.clone(), server, leave },
        boot_id: machine.boot_id,
        ledger: ledger.clone(),
        shims: shims.clone(),
        listen_anew: registration.listen_anew.clone(),
        sandboxes,
        changed: registration.changed.clone(),
        workshop,
        gpus: gpus.clone(),
        keep_deleted: SignedDuration::try_from(keep_deleted).context("time to keep logs")?,
    });
    let on_shutdown = match kill_tasks_on_shutdown {
        true => OnShutdown::KillTasks,
        false => OnShutdown::LeaveTasks,
    };

    // These go on while the driver winds up: its last reports want a live agent, and somebody may
    // still be reading a log.
    let background = CancellationToken::new();
    let mut parts = JoinSet::new();
    let sessions = Sessions::new(ledger.clone(), shims, background.clone());
    let stats = Stats::new(ledger.clone(), group.clone());
    let router = crate::logs::router(ledger.clone())
        .merge(crate::sandbox::router(ledger))
        .merge(sessions.router())
        .merge(stats.router());
    parts.spawn(endpoint.serve(router, background.clone()));
    if let Some(gpus) = gpus {
        parts.spawn(gpus.watch(registration.changed.clone(), background.clone()));
    }
    parts.spawn(registration.clone().keep_agent(background.clone()));
    parts.spawn(registration.clone().keep_lease(background.clone()));
    let result = work(driver.run(on_shutdown, shutdown), parts, background).await;
    registration.say_farewell().await;
    detect::remove_empty_group(&group);
    commonage_shim::leave_run_dir();
    result
}

/// Runs the driver to its end, then ends the parts around it; the death of a part ends it all.
async fn work(
    driver: impl Future<Output = anyhow::Result<()>>,
    mut parts: JoinSet<()>,
    background: CancellationToken,
) -> anyhow::Result<()> {
    let result = tokio::select! {
        result = driver => result,
        Some(ended) = parts.join_next() => match ended {
            Ok(()) => Err(anyhow::anyhow!("a part of the agent ended by itself")),
            Err(error) => Err(anyhow::Error::new(error).context("a part of the agent died")),
        },
    };
    background.cancel();
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the agent died while stopping");
        }
    }
    result
}

/// Two agents on one data directory would launch everything twice.
fn lock(data_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = data_dir.join("agent").join("agent.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::Error::new(error).context(format!(
            "another agent uses {}: stop it or give this one a data directory of its own",
            data_dir.display()
        ))
    })
}

fn host_of(listen: SocketAddr, hostname: &str) -> String {
    match listen.ip() {
        ip if ip.is_unspecified() => hostname.to_owned(),
        ip => ip.to_string(),
    }
}

fn with_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}
