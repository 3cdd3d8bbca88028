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

/// Why `name` is not a DNS label (namespaces); empty when it is one.
pub fn dns_label_errors(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX));
    }
    if !is_dns_label(name) {
        errors.push(DNS_LABEL_SYNTAX.into());
    }
    errors
}

/// Why `name` is not a DNS subdomain (names of most objects).
pub fn dns_subdomain_errors(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX));
    }
    if !name.split('.').all(is_dns_label) {
        errors.push(DNS_SUBDOMAIN_SYNTAX.into());
    }
    errors
}

/// Why `name` may not stand in a URL: what is asked of every object, and all that is asked of some
/// kinds (RBAC's).
pub fn path_segment_errors(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    let inside = ["/", "%"].into_iter().filter(|text| name.contains(text));
    inside.map(|text| format!("may not contain '{text}'")).collect()
}

/// Why `key` is not a name with an optional domain and `/` (label and annotation keys, finalizers).
pub fn qualified_name_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = key.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                let why = dns_subdomain_errors(prefix);
                errors.extend(why.into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {QUALIFIED_NAME_SYNTAX} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_VALUE_MAX {
        errors.push(format!("name part {}", too_long(LABEL_VALUE_MAX)));
    }
    if !is_label_text(name) {
        errors.push(format!("name part {QUALIFIED_NAME_SYNTAX}"));
    }
    errors
}

/// Why `value` may not be a label's value.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_VALUE_MAX {
        errors.push(too_long(LABEL_VALUE_MAX));
    }
    if !value.is_empty() && !is_label_text(value) {
        errors.push(LABEL_VALUE_SYNTAX.into());
    }
    errors
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
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
