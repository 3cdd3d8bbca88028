//! An API server by itself, to try things by hand: `serve DATA_DIR [LISTEN] [memory|embedded|URL]`.

use std::path::PathBuf;

use commonage_apiserver::server::StoreKind;
use commonage_apiserver::{ApiServer, Config};

/// As in `cmn`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let data_dir = PathBuf::from(arguments.next().unwrap_or_else(|| "data".to_owned()));
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let store = match arguments.next().as_deref() {
        None | Some("memory") => StoreKind::Memory,
        Some("embedded") => StoreKind::Embedded,
        Some(url) => StoreKind::Etcd(vec![url.to_owned()]),
    };
    let tokens = data_dir.join("tokens.csv");
    let config = Config::new(&data_dir, listen.parse()?, store)
        .with_tokens(tokens.exists().then_some(tokens));
    let server = ApiServer::start(config).await?;
    println!("{}", server.server_url());
    println!("KUBECONFIG={}", server.admin_kubeconfig_path().display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
