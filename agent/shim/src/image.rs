//! The root file system of a task with an image: its layers stacked by overlayfs, with a directory of the task's
//! own on top, which goes with the task.
//!
//! Everything that is looked up or made in there is resolved by the kernel inside it (`RESOLVE_IN_ROOT`): an
//! image whose `/etc` is a link to the host's finds its own.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::launch::{ExitError, FailureReason, Launch, Root, User};
use crate::stage::Stage;
use crate::state_dir::StateDir;

/// Larger lists of users belong to no image.
const USERS_MAX: u64 = 4 << 20;
/// What a task cannot do without, and no image knows: file inside, and how it is made.
const OURS: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Stacks the layers at the state directory's `rootfs`.
pub(crate) fn assemble(
    layers: &[PathBuf],
    state: &StateDir,
    stage: Option<&mut Stage>,
) -> io::Result<PathBuf> {
    let root = if stage.is_some() { Stage::root() } else { state.rootfs() };
    for directory in [&root, &state.upper(), &state.work()] {
        fs::create_dir_all(directory)?;
    }
    let mut translated = Vec::new();
    let (layers, flags) = match stage {
        // What the machine does not let set-user-id programs do, a container's root of its own users may.
        Some(stage) => {
            stage.own(&state.upper())?;
            for layer in layers {
                translated.push(stage.show(layer)?);
            }
            (translated.as_slice(), MsFlags::empty())
        }
        None => (layers, MsFlags::MS_NOSUID | MsFlags::MS_NODEV),
    };
    // All layers lie below one directory; from there their names are short enough for one page of options.
    let base = common_parent(layers);
    std::env::set_current_dir(&base)?;
    let below: Vec<String> =
        layers.iter().map(|layer| escaped(layer.strip_prefix(&base).unwrap_or(layer))).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},index=off",
        below.join(":"),
        escaped(&state.upper()),
        escaped(&state.work())
    );
    // Nothing in the upper directory outlives the task, so nothing in it need reach the disk.
    let mounted = stack(&root, &format!("{options},volatile"), flags)
        .or_else(|_| stack(&root, &options, flags));
    std::env::set_current_dir("/")?;
    mounted?;
    let none: Option<&str> = None;
    mount(none, &root, none, MsFlags::MS_PRIVATE, none)?;
    Ok(root)
}

fn stack(root: &Path, options: &str, flags: MsFlags) -> io::Result<()> {
    mount(Some("overlay"), root, Some("overlay"), flags, Some(options))?;
    Ok(())
}

fn common_parent(layers: &[PathBuf]) -> PathBuf {
    let mut parent = layers.first().and_then(|layer| layer.parent()).unwrap_or(Path::new("/"));
    while !layers.iter().all(|layer| layer.starts_with(parent)) {
        parent = parent.parent().unwrap_or(Path::new("/"));
    }
    parent.to_owned()
}

/// Overlayfs reads colons and commas as separators unless a backslash is before them.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for c in path.display().to_string().chars() {
        if matches!(c, ':' | ',' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Completes what only the image can say: who its users are, where they live; and makes what the container needs
/// inside it.
///
/// # Errors
/// The image has no such user.
pub(crate) fn complete(
    launch: &mut Launch,
    state: &StateDir,
    root: &Path,
) -> Result<(), ExitError> {
    let Root::Image { .. } = launch.root else { return Ok(()) };
    let failed = |error: io::Error| ExitError {
        reason: FailureReason::CreateFailed,
        message: format!("the image's files: {error}"),
    };
    let root = open_root(root).map_err(failed)?;
    let passwd = read_in(&root, "etc/passwd").unwrap_or_default();
    let group = read_in(&root, "etc/group").unwrap_or_default();
    if let Some(name) = launch.user_name.take() {
        launch.user = find_user(&name, &passwd, &group).map_err(|what| ExitError {
            reason: FailureReason::InvalidLaunch,
            message: format!("spec.container.user: {what}"),
        })?;
    }
    let home = home_of(launch.user.uid, &passwd);
    launch.env.entry("HOME".to_owned()).or_insert_with(|| home.unwrap_or_else(|| "/".to_owned()));
    let directory = launch.working_dir.get_or_insert_with(|| PathBuf::from("/"));
    // As Docker does; one that cannot be made is found out when it is entered.
    let _ = make_directory(&root, directory);
    own_files(launch, state, &root).map_err(failed)
}

/// `/etc/hosts` and its like: made beside the container, and mounted over the image's where it has a place for
/// them.
fn own_files(launch: &mut Launch, state: &StateDir, root: &OwnedFd) -> io::Result<()> {
    let hostname = launch.hostname.clone().unwrap_or_else(|| launch.id.clone());
    fs::create_dir_all(state.etc())?;
    for name in OURS {
        let target = format!("etc/{name}");
        if !has_place(root, &target) {
            continue;
        }
        let content = match name {
            "hostname" => format!("{hostname}\n").into_bytes(),
            "hosts" => {
                let mut hosts = fs::read("/etc/hosts").unwrap_or_default();
                hosts.extend_from_slice(format!("\n127.0.0.1\t{hostname}\n").as_bytes());
                hosts
            }
            _ => fs::read(Path::new("/etc").join(name)).unwrap_or_default(),
        };
        let source = state.etc().join(name);
        fs::File::create(&source)?.write_all(&content)?;
        let target = Path::new("/").join(target);
        if launch.mounts.iter().all(|mount| mount.target != target) {
            launch.mounts.push(crate::launch::Mount {
                source,
                target,
                read_only: true,
                ..crate::launch::Mount::default()
            });
        }
    }
    Ok(())
}

/// Whether there is a plain file, or room for one.
fn has_place(root: &OwnedFd, path: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    open_in(root, path, flags, 0o644).is_ok_and(|file| {
        rustix::fs::fstat(&file).is_ok_and(|status| {
            rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::RegularFile
        })
    })
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, root, flags, Mode::empty())?)
}

fn open_in(root: &OwnedFd, path: &str, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let mode = if flags.contains(OFlags::CREATE) { mode } else { 0 };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), inside)
}

fn read_in(root: &OwnedFd, path: &str) -> io::Result<String> {
    // Not to wait for a writer, should it be a pipe.
    let file = open_in(root, path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
    let mut bytes = Vec::new();
    fs::File::from(file).take(USERS_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn make_directory(root: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let path = path.to_string_lossy();
    let mut parent = open_in(root, "/", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for depth in 0..parts.len() {
        let so_far = parts[..=depth].join("/");
        let open = || open_in(root, &so_far, OFlags::RDONLY | OFlags::DIRECTORY, 0);
        parent = match open() {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, parts[depth], Mode::from_raw_mode(0o755))?;
                open()?
            }
            opened => opened?,
        };
    }
    Ok(())
}

/// `user` or `user:group`, each a name of the image's or a number.
fn find_user(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, named_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let by = |column: usize| move |line: &Vec<&str>| line.get(column) == Some(&user);
    let known = records(passwd).find(by(0)).or_else(|| records(passwd).find(by(2)));
    let number = |line: &Vec<&str>, column: usize| line.get(column)?.parse::<u32>().ok();
    let uid = match (&known, user.parse::<u32>()) {
        (_, Ok(uid)) => uid,
        (Some(line), Err(_)) => {
            number(line, 2).ok_or_else(|| format!("{user:?} has no number in the image"))?
        }
        (None, Err(_)) => return Err(format!("the image has no user {user:?}")),
    };
    let gid = match named_group {
        None => known.as_ref().and_then(|line| number(line, 3)).unwrap_or(0),
        Some(name) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => records(group)
                .find(|line| line.first() == Some(&name))
                .and_then(|line| number(&line, 2))
                .ok_or_else(|| format!("the image has no group {name:?}"))?,
        },
    };
    if uid == u32::MAX || gid == u32::MAX {
        return Err(format!("{text:?} is no number of a user"));
    }
    let name = known.as_ref().and_then(|line| line.first().copied()).unwrap_or(user);
    let member = |line: &Vec<&str>| line.get(3).is_some_and(|m| m.split(',').any(|m| m == name));
    // A group that was named replaces the others, as in Docker.
    let additional_gids = match named_group {
        Some(_) => Vec::new(),
        None => records(group)
            .filter(member)
            .filter_map(|line| number(&line, 2))
            .filter(|extra| *extra != gid)
            .collect(),
    };
    Ok(User { uid, gid, additional_gids })
}

fn home_of(uid: u32, passwd: &str) -> Option<String> {
    let uid = uid.to_string();
    let line = records(passwd).find(|line| line.get(2) == Some(&uid.as_str()))?;
    line.get(5).filter(|home| home.starts_with('/')).map(|home| (*home).to_owned())
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\naudio:x:29:app,other\n";

    #[test]
    fn users_are_found_as_docker_finds_them() {
        for (text, uid, gid, more) in [
            ("app", 1000, 1001, vec![29]),
            ("1000", 1000, 1001, vec![29]),
            ("app:audio", 1000, 29, vec![]),
            ("7", 7, 0, vec![]),
            ("7:8", 7, 8, vec![]),
            ("root", 0, 0, vec![]),
        ] {
            let user = find_user(text, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid, user.additional_gids), (uid, gid, more), "{text}");
        }
        for (text, what) in
            [("nobody", "no user"), ("app:nogroup", "no group"), ("4294967295", "no number")]
        {
            assert!(find_user(text, PASSWD, GROUP).unwrap_err().contains(what), "{text}");
        }
        assert_eq!(home_of(1000, PASSWD).as_deref(), Some("/srv/app"));
        assert_eq!(home_of(7, PASSWD), None);
    }

    #[test]
    fn layers_are_named_from_where_they_lie_together() {
        let layers = ["/d/layers/a/t", "/d/images/b/t"].map(PathBuf::from);
        assert_eq!(common_parent(&layers), Path::new("/d"));
        assert_eq!(common_parent(&layers[..1]), Path::new("/d/layers/a"));
        assert_eq!(escaped(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }
}
