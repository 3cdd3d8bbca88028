//! How long an image takes from a registry on loopback to a directory that can be run, and what that is made of:
//! `cargo run --release -p commonage-image --example pull [MIB [LAYERS]]`.
//!
//! The image is made of this machine's own files (`/usr`), packed with gzip, MIB in all as the registry has it. Beside
//! the pull, the same layers are only hashed, only decompressed, and unpacked by `tar`, in the same run: on a
//! busy machine the ratios say more than the times. Processor time is that of all threads.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonage_image::{Digest, Images, Options, Request};
use serde_json::{Value, json};

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anything<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let mib = numbers.first().copied().unwrap_or(193);
    let count = numbers.get(1).copied().unwrap_or(4);
    let layers = pack(mib << 20, usize::try_from(count)?)?;
    let packed: usize = layers.iter().map(|layer| layer.blob.len()).sum();
    let unpacked: usize = layers.iter().map(|layer| layer.tar_bytes).sum();
    println!("{count} layers, {} MiB packed, {} MiB unpacked", packed >> 20, unpacked >> 20);

    let place = tempfile::tempdir_in("/var/tmp")?;
    measure("hash what comes", || {
        for layer in &layers {
            std::hint::black_box(Digest::of(&layer.blob));
        }
        Ok(())
    })?;
    measure("decompress alone", || {
        for layer in &layers {
            let mut reader = flate2::read::MultiGzDecoder::new(&layer.blob[..]);
            std::io::copy(&mut reader, &mut std::io::sink())?;
        }
        Ok(())
    })?;
    for (number, layer) in layers.iter().enumerate() {
        std::fs::write(place.path().join(format!("{number}.tar.gz")), &layer.blob)?;
    }
    measure("tar -xzf, one by one", || {
        for number in 0..layers.len() {
            let to = place.path().join(format!("tar-{number}"));
            std::fs::create_dir(&to)?;
            let from = place.path().join(format!("{number}.tar.gz"));
            let done = Command::new("tar").arg("-xzf").arg(from).arg("-C").arg(&to).status()?;
            assert!(done.success(), "tar: {done}");
        }
        Ok(())
    })?;

    let address = serve(layers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for turn in 1..=3 {
        let images =
            Images::open(&place.path().join(format!("images-{turn}")), Options::default())?;
        let reference = format!("{address}/bench/image:latest").parse()?;
        let request = Request { reference, credentials: None };
        measure(&format!("pull, {turn}. time"), || {
            let pulled = runtime.block_on(images.pull(&request, |_| {}))?;
            assert_eq!(pulled.layers.len(), usize::try_from(count)?);
            Ok(())
        })?;
    }
    Ok(())
}

fn measure(what: &str, work: impl FnOnce() -> Anything<()>) -> Anything<()> {
    let (began, before) = (Instant::now(), processor_time());
    work()?;
    let (wall, used) = (began.elapsed(), processor_time() - before);
    println!(
        "{what:>22}: {:6.2} s, {:6.2} s of processor time",
        wall.as_secs_f64(),
        used.as_secs_f64()
    );
    Ok(())
}

/// Of this process and of its children that have ended; fields 14 to 17 of proc(5), in hundredths.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

struct Layer {
    blob: Vec<u8>,
    diff_id: Digest,
    tar_bytes: usize,
}

/// Files of this machine, each layer about as large as the others.
fn pack(bytes: u64, count: usize) -> Anything<Vec<Layer>> {
    let mut files = Vec::new();
    for top in ["/usr/lib", "/usr/bin", "/usr/share"] {
        collect(Path::new(top), &mut files);
    }
    let mut files = files.into_iter();
    let mut layers = Vec::new();
    let each = usize::try_from(bytes)? / count;
    for _ in 0..count {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut builder = tar::Builder::new(Tee { gzip, tar: Vec::new() });
        for file in files.by_ref() {
            let name = file.strip_prefix("/")?.to_owned();
            // One that may not be read is none of ours.
            let _ = builder.append_path_with_name(&file, name);
            if builder.get_ref().gzip.get_ref().len() >= each {
                break;
            }
        }
        let Tee { gzip, tar } = builder.into_inner()?;
        let diff_id = Digest::of(&tar);
        layers.push(Layer { blob: gzip.finish()?, diff_id, tar_bytes: tar.len() });
    }
    Ok(layers)
}

/// Regular files that any user may read.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match path.symlink_metadata() {
            Ok(there) if there.is_dir() => collect(&path, files),
            Ok(there) if there.is_file() => files.push(path),
            _ => {}
        }
    }
}

/// An archive, packed and as it is.
struct Tee {
    gzip: flate2::write::GzEncoder<Vec<u8>>,
    tar: Vec<u8>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.tar.extend_from_slice(bytes);
        self.gzip.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A registry of one image; ends with the process.
fn serve(layers: Vec<Layer>) -> Anything<String> {
    let descriptor = |bytes: &[u8], media: &str| json!({"mediaType": media, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let listed: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor(&layer.blob, "application/vnd.oci.image.layer.v1.tar+gzip"))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(&config, "application/vnd.oci.image.config.v1+json"), "layers": listed,
    });
    let mut documents = HashMap::from([("latest".to_owned(), manifest.to_string().into_bytes())]);
    documents.insert(Digest::of(&config).to_string(), config);
    for layer in layers {
        documents.insert(Digest::of(&layer.blob).to_string(), layer.blob);
    }
    let documents = Arc::new(documents);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let documents = Arc::clone(&documents);
            std::thread::spawn(move || answer(stream, &documents));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, documents: &HashMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let (status, body) = match documents.get(name) {
            Some(body) => ("200 OK", &body[..]),
            None => ("404 Not Found", &b"{}"[..]),
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
    }
}
