//! Bearer tokens from a file, in kube-apiserver's own format: `token,user,uid[,"group1,group2"]`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{AUTHENTICATED, UserInfo};

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot read the token file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{}:{line}: {problem} (each line is: token,user,uid,\"group1,group2\")",
        path.display()
    )]
    Line { path: PathBuf, line: usize, problem: &'static str },
}

/// Tokens are kept and looked up by their digest, so that the time a lookup takes says nothing
/// about a token.
#[derive(Default)]
pub struct Tokens {
    users: HashMap<[u8; 32], Arc<UserInfo>>,
}

impl Tokens {
    pub fn load(path: &Path) -> Result<Tokens, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Read { path: path.to_owned(), source })?;
        Tokens::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Tokens, TokenFileError> {
        let mut tokens = Tokens::default();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong =
                |problem| TokenFileError::Line { path: path.to_owned(), line: index + 1, problem };
            let fields = fields(line).map_err(wrong)?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(wrong("fewer than three columns"));
            };
            if token.is_empty() {
                return Err(wrong("the token is empty"));
            }
            if name.is_empty() {
                return Err(wrong("the user is empty"));
            }
            let mut groups: Vec<String> = rest
                .first()
                .map(|groups| groups.split(',').map(|group| group.trim().to_owned()))
                .into_iter()
                .flatten()
                .filter(|group| !group.is_empty())
                .collect();
            groups.push(AUTHENTICATED.to_owned());
            let user =
                UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            if tokens.users.insert(digest(token), Arc::new(user)).is_some() {
                return Err(wrong("the same token stands on an earlier line"));
            }
        }
        Ok(tokens)
    }

    #[cfg(test)]
    fn user(&self, token: &str) -> Option<Arc<UserInfo>> {
        self.user_by(&digest(token))
    }

    /// By the token's [`digest`].
    pub(crate) fn user_by(&self, digest: &[u8; 32]) -> Option<Arc<UserInfo>> {
        self.users.get(digest).cloned()
    }
}

pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The columns of one line of CSV (RFC 4180): a quoted column may hold commas, and `""` in it is a
/// quote.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    loop {
        let mut field = String::new();
        while chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quote is not closed"),
                }
            }
            while chars.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err("a quote stands in the middle of a column");
                }
                field.push(c);
            }
            field.truncate(field.trim_end().len());
        }
        fields.push(field);
        match chars.next() {
            None => return Ok(fields),
            Some(',') => {}
            Some(_) => return Err("text follows a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(text, Path::new("tokens.csv")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_user_with_groups() {
        let tokens = parse("abc,alice,1,\"dev,ops\"\n\nxyz,bob,2\n").unwrap();
        let alice = tokens.user("abc").unwrap();
        assert_eq!(alice.name, "alice");
        assert_eq!(alice.uid, "1");
        assert_eq!(alice.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(tokens.user("xyz").unwrap().groups, [AUTHENTICATED]);
        assert!(tokens.user("nobody").is_none());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, says) in [
            ("a,b,c\nonly,two\n", "tokens.csv:2: fewer than three"),
            (",b,c\n", "tokens.csv:1: the token is empty"),
            ("a,,c\n", "tokens.csv:1: the user is empty"),
            ("a,b,c,\"d\n", "tokens.csv:1: a quote is not closed"),
            ("a,b,c\na,d,e\n", "tokens.csv:2: the same token"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(says), "{error}");
        }
    }
}
