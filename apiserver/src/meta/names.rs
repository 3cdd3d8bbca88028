//! Syntax of names, labels and qualified keys, with apimachinery's messages.

use rand::Rng;

/// Kubernetes' limit of an object's name; five of it are left to the random suffix.
const GENERATED_BASE_MAX: usize = 58;
/// No vowels and nothing that looks like another character: no words by accident.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

const DNS_LABEL_MAX: usize = 63;
const DNS_SUBDOMAIN_MAX: usize = 253;
const LABEL_VALUE_MAX: usize = 63;

const DNS_LABEL_SYNTAX: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
     or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used \
     for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN_SYNTAX: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
     used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_NAME_SYNTAX: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
     and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
     validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_SYNTAX: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
     '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  \
     or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// `base` cut to 58 characters and five random ones of Kubernetes' vowel-free alphabet.
pub fn generate_name(base: &str) -> String {
    let mut rng = rand::rng();
    let mut name: String = base.chars().take(GENERATED_BASE_MAX).collect();
    name.extend(
        (0..SUFFIX_LENGTH)
            .map(|_| SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())] as char),
    );
    name
}

/// # Errors
/// Why `name` is not a DNS label (namespaces).
pub fn check_dns_label(name: &str) -> Result<(), String> {
    if name.len() > DNS_LABEL_MAX {
        return Err(format!("must be no more than {DNS_LABEL_MAX} characters"));
    }
    if is_dns_label(name) { Ok(()) } else { Err(DNS_LABEL_SYNTAX.into()) }
}

/// # Errors
/// Why `name` is not a DNS subdomain (names of most objects).
pub fn check_dns_subdomain(name: &str) -> Result<(), String> {
    if name.len() > DNS_SUBDOMAIN_MAX {
        return Err(format!("must be no more than {DNS_SUBDOMAIN_MAX} characters"));
    }
    if name.split('.').all(is_dns_label) { Ok(()) } else { Err(DNS_SUBDOMAIN_SYNTAX.into()) }
}

/// # Errors
/// Why `name` cannot stand in a path (names of roles and bindings).
pub fn check_path_segment(name: &str) -> Result<(), String> {
    if name == "." || name == ".." {
        return Err(format!("may not be '{name}'"));
    }
    match name.chars().find(|c| matches!(c, '/' | '%')) {
        Some(illegal) => Err(format!("may not contain '{illegal}'")),
        None => Ok(()),
    }
}

/// # Errors
/// Why `key` is not a name with an optional domain and `/` (label and annotation keys, finalizers).
pub fn check_qualified_name(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return Err(format!(
                "a qualified name {QUALIFIED_NAME_SYNTAX} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            ));
        }
        Some(("", _)) => return Err("prefix part must be non-empty".into()),
        Some((prefix, name)) => {
            check_dns_subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
    };
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > LABEL_VALUE_MAX {
        return Err(format!("name part must be no more than {LABEL_VALUE_MAX} characters"));
    }
    if is_label_text(name) { Ok(()) } else { Err(format!("name part {QUALIFIED_NAME_SYNTAX}")) }
}

/// # Errors
/// Why `value` may not be a label's value.
pub fn check_label_value(value: &str) -> Result<(), String> {
    if value.len() > LABEL_VALUE_MAX {
        return Err(format!("must be no more than {LABEL_VALUE_MAX} characters"));
    }
    if value.is_empty() || is_label_text(value) { Ok(()) } else { Err(LABEL_VALUE_SYNTAX.into()) }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    text.bytes().all(inner) && has_no_edge(text, b"-")
}

fn is_label_text(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    text.bytes().all(inner) && has_no_edge(text, b"-_.")
}

/// Not empty, and neither end is one of `inner_only`.
fn has_no_edge(text: &str, inner_only: &[u8]) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => !inner_only.contains(first) && !inner_only.contains(last),
        _ => false,
    }
}
