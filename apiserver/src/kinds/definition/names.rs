//! The syntax of a definition's names.

use serde_json::Value;

use super::validate::text;
use crate::status::Cause;

const DNS_1035_SYNTAX: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
     with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
     used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_MAX: usize = 63;

/// Why `name` is not a DNS-1035 label.
pub(super) fn check_dns_1035_label(name: &str) -> Result<(), String> {
    let mut problems = Vec::new();
    if name.len() > LABEL_MAX {
        problems.push(format!("must be no more than {LABEL_MAX} characters"));
    }
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(inner);
    if !sound {
        problems.push(DNS_1035_SYNTAX.to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join(",")) }
}

/// Names that are missing are no matter of syntax.
pub(super) fn check(names: &Value, at: &str, causes: &mut Vec<Cause>) {
    for field in ["plural", "singular"] {
        let name = text(names, field);
        if let (false, Err(why)) = (name.is_empty(), check_dns_1035_label(name)) {
            causes.push(Cause::invalid(format!("{at}.{field}"), &names[field], &why));
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(names, field);
        if let (false, Err(why)) = (name.is_empty(), check_dns_1035_label(&name.to_lowercase())) {
            let detail = format!("may have mixed case, but should otherwise match: {why}");
            causes.push(Cause::invalid(format!("{at}.{field}"), &names[field], &detail));
        }
    }
    check_each(names, "shortNames", at, causes);
    if !text(names, "kind").is_empty() && names["kind"] == names["listKind"] {
        let detail = "kind and listKind may not be the same";
        causes.push(Cause::invalid(format!("{at}.listKind"), &names["listKind"], detail));
    }
    check_each(names, "categories", at, causes);
}

fn check_each(names: &Value, field: &str, at: &str, causes: &mut Vec<Cause>) {
    for (place, name) in names[field].as_array().into_iter().flatten().enumerate() {
        if let Err(why) = check_dns_1035_label(name.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(format!("{at}.{field}[{place}]"), name, &why));
        }
    }
}
