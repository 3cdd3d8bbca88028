//! Which names Mesos gives roles: paths of words, told apart by `/`. Ours are dotted names of another
//! syntax; a scenario has to keep to Mesos'.

/// Signs that no name has: white space and what deletes.
const FORBIDDEN: [char; 7] = ['\t', '\n', '\u{b}', '\u{c}', '\r', ' ', '\u{7f}'];

/// What is wrong with the name, if anything is.
pub(super) fn wrong(role: &str) -> Option<String> {
    // Everybody's role; it has none below it and is below none.
    if role == "*" {
        return None;
    }
    let mut words = role.split('/');
    words.find_map(|word| {
        let why = match word {
            "" => "an empty word",
            "." | ".." => "a word that stands for a place",
            "*" => "`*` with others",
            _ if word.starts_with('-') => "a word that begins with `-`",
            _ if word.contains(FORBIDDEN) => "a sign that is forbidden",
            _ => return None,
        };
        Some(format!("{role:?} is no name of a role: {why}"))
    })
}

/// Names with commas between them; nothing between two commas is no name.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(|name| wrong(name).map_or_else(|| Ok(name.to_owned()), Err)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let said = |role| wrong(role).unwrap();
        assert_eq!(said("a//b"), "\"a//b\" is no name of a role: an empty word");
        assert!(said("a/-b").ends_with("begins with `-`"));
        assert_eq!(wrong("a.b/c-d"), None);
        assert_eq!(parse("a,,b/c,").unwrap(), ["a", "b/c"]);
        assert_eq!(parse("a,b c").unwrap_err(), said("b c"));
    }
}
