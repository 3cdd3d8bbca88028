//! What a task runs: command, users, ports, mounts, checks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{COMMAND_BYTES_MAX, ENV_BYTES_MAX, FieldError, items, size};
use crate::{capabilities, resources::Ranges};

pub(super) fn command(at: &str, container: &Value, errors: &mut Vec<FieldError>) {
    let words = || {
        items(&container["command"])
            .chain(items(&container["args"]))
            .filter_map(|(_, w)| w.as_str())
    };
    if container["image"].is_null() && words().next().is_none() {
        errors.push(FieldError::required(
            format!("{at}.container.command"),
            "a task without an image needs a command, such as [\"sh\", \"-c\", \"echo hello\"]",
        ));
    }
    if words().any(|word| word.contains('\0')) {
        errors.push(FieldError::invalid(
            format!("{at}.container.command"),
            &container["command"],
            "must not contain NUL characters",
        ));
    }
    if words().map(str::len).sum::<usize>() > COMMAND_BYTES_MAX {
        errors.push(FieldError::forbidden(
            format!("{at}.container.command"),
            format!("is longer than {COMMAND_BYTES_MAX} bytes; put the program into a file"),
        ));
    }
    let mut seen = BTreeSet::new();
    for (i, variable) in items(&container["env"]) {
        let field = format!("{at}.container.env[{i}].name");
        match variable["name"].as_str() {
            Some(name) if name.is_empty() || name.contains(['=', '\0']) => {
                errors.push(FieldError::invalid(
                    field,
                    &variable["name"],
                    "must not be empty or contain '='",
                ));
            }
            Some(name) if !seen.insert(name) => errors.push(FieldError::duplicate(field, name)),
            _ => {}
        }
        value(&format!("{at}.container.env[{i}].value"), &variable["value"], errors);
    }
    if let Some(user) = container["user"].as_str()
        && !user.splitn(2, ':').all(|id| is_user(id, container["image"].is_string()))
    {
        errors.push(FieldError::invalid(
            format!("{at}.container.user"),
            &container["user"],
            "must be numbers: \"uid\" or \"uid:gid\", such as \"1000:1000\"",
        ));
    }
    if let Some(dir) = container["workingDir"].as_str()
        && !dir.starts_with('/')
    {
        errors.push(FieldError::invalid(
            format!("{at}.container.workingDir"),
            &container["workingDir"],
            "must be an absolute path",
        ));
    }
}

/// Of an environment variable.
fn value(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.contains('\0') {
        errors.push(FieldError::invalid(field, value, "must not contain NUL characters"));
    }
    if text.len() > ENV_BYTES_MAX {
        errors.push(FieldError::forbidden(
            field,
            format!(
                "is longer than {ENV_BYTES_MAX} bytes; put it into a file: a ConfigMap, mounted"
            ),
        ));
    }
}

/// A number, but for the last, which means "nobody" to the kernel; where an image knows users, also a name.
fn is_user(text: &str, has_names: bool) -> bool {
    match text.parse::<u32>() {
        Ok(id) => id != u32::MAX,
        Err(_) => {
            has_names
                && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$".contains(&b))
        }
    }
}

pub(super) fn capability_names(at: &str, container: &Value, errors: &mut Vec<FieldError>) {
    for list in ["capabilities", "dropCapabilities"] {
        for (i, name) in items(&container[list]) {
            let Some(text) = name.as_str() else { continue };
            let every = list == "dropCapabilities" && text == capabilities::EVERY;
            if !every && capabilities::bare(text).is_none() {
                errors.push(FieldError::invalid(
                    format!("{at}.container.{list}[{i}]"),
                    name,
                    "must be the name of a Linux capability, such as \"NET_ADMIN\" (capabilities(7))",
                ));
            }
        }
    }
}

pub(super) fn ports(at: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let asked: Option<Ranges> =
        spec["resources"]["ports"].as_str().and_then(|text| text.parse().ok());
    for (i, port) in items(&spec["container"]["ports"]) {
        let field = format!("{at}.container.ports[{i}]");
        if let Some(name) = port["name"].as_str() {
            if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                errors.push(FieldError::invalid(
                    format!("{field}.name"),
                    &port["name"],
                    "must consist of letters, digits, '-' and '_'",
                ));
            }
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), name));
            }
        }
        let Some(number) =
            port["hostPort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
        else {
            continue;
        };
        if !numbers.insert(number) {
            errors.push(FieldError::duplicate(format!("{field}.hostPort"), &number.to_string()));
        }
        if let Some(asked) = &asked
            && !asked.has(number)
        {
            errors.push(FieldError::invalid(
                format!("{field}.hostPort"),
                &port["hostPort"],
                format!("is not among the ports that the task asks for in {at}.resources.ports ({asked})"),
            ));
        }
    }
}

pub(super) fn mounts(at: &str, mounts: &Value, errors: &mut Vec<FieldError>) {
    const SOURCES: [&str; 5] = ["volume", "secret", "configMap", "hostPath", "tmpfs"];
    let mut seen = BTreeSet::new();
    for (i, mount) in items(mounts) {
        let field = format!("{at}.container.mounts[{i}]");
        match mount["path"].as_str() {
            Some(path) if !path.starts_with('/') || path.split('/').any(|part| part == "..") => {
                errors.push(FieldError::invalid(
                    format!("{field}.path"),
                    &mount["path"],
                    "must be an absolute path without \"..\"",
                ))
            }
            Some(path) if !seen.insert(path) => {
                errors.push(FieldError::duplicate(format!("{field}.path"), path))
            }
            _ => {}
        }
        let sources = SOURCES.iter().filter(|name| !mount[**name].is_null()).count();
        if sources != 1 {
            errors.push(FieldError::invalid(
                field.clone(),
                mount,
                format!("must have exactly one of {}", SOURCES.join(", ")),
            ));
        }
        size(&format!("{field}.tmpfs.size"), &mount["tmpfs"]["size"], errors);
    }
}

pub(super) fn check(at: &str, check: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    if check.is_null() {
        return;
    }
    let given: Vec<&str> =
        ["http", "tcp", "exec"].into_iter().filter(|name| !check[*name].is_null()).collect();
    if given.len() != 1 {
        errors.push(FieldError::invalid(at, check, "must have exactly one of http, tcp, exec"));
    }
    for kind in given.into_iter().filter(|kind| *kind != "exec") {
        let ports = || items(&spec["container"]["ports"]).map(|(_, port)| port);
        match check[kind]["port"].as_str() {
            Some(name) if !ports().any(|port| port["name"].as_str() == Some(name)) => {
                errors.push(FieldError::invalid(
                    format!("{at}.{kind}.port"),
                    &check[kind]["port"],
                    "must be the name of one of the container's ports",
                ))
            }
            None if ports().next().is_none() => errors.push(FieldError::required(
                format!("{at}.{kind}.port"),
                "the container has no port to check; add one to container.ports",
            )),
            _ => {}
        }
    }
}
