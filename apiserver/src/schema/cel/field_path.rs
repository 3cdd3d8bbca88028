//! The `fieldPath` of a rule: a simple JSONPath to a field of its schema.

use serde_json::Value;

/// The path as causes name it (`.spec.limits['cpu']` is `spec.limits[cpu]`); `None` if it is not
/// one, or leads to no field of the schema.
pub(in crate::schema) fn field_path(text: &str, schema: &Value) -> Option<String> {
    let (mut path, mut rest, mut schema) = (String::new(), text.trim(), schema);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let name;
        (name, rest) = segment(rest)?;
        let properties = schema.get("properties").and_then(Value::as_object);
        if let Some(properties) = properties {
            schema = properties.get(&name)?;
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&name);
        } else {
            schema = schema.get("additionalProperties").filter(|values| values.is_object())?;
            path.push_str(&format!("[{name}]"));
        }
    }
    Some(path)
}

/// The first segment, `.name` or `['name']`, and what follows it.
fn segment(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        return (end > 0).then(|| (rest[..end].to_owned(), &rest[end..]));
    }
    let quoted = text.strip_prefix("['")?;
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other @ ('\'' | '\\') => other,
                _ => return None,
            }),
            '\'' => return Some((name, quoted[at + 1..].strip_prefix(']')?)),
            other => name.push(other),
        }
    }
    None
}
