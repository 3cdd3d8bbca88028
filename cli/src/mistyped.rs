//! Verbs that `cmn` has not: which one was meant, or who has it.

use clap::{
    CommandFactory, Error, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{args::Cli, kinds::closest};

/// What kubectl does on the same cluster.
const OF_KUBECTL: [&str; 16] = [
    "annotate",
    "api-resources",
    "auth",
    "cluster-info",
    "config",
    "create",
    "diff",
    "edit",
    "events",
    "explain",
    "label",
    "patch",
    "replace",
    "rollout",
    "scale",
    "set",
];
/// Words of other tools for what is here.
const OTHERWISE: [(&str, &str); 8] = [
    ("dev", "up"),
    ("kill", "delete"),
    ("list", "get"),
    ("ls", "get"),
    ("ps", "get tasks"),
    ("rm", "delete"),
    ("start", "run"),
    ("stop", "delete"),
];
/// Kinds are what verbs are about.
const KINDS: [&str; 7] =
    ["agents", "frameworks", "offers", "queues", "reservations", "tasks", "volumes"];

/// The command line of this process. One that is wrong ends it, as with clap alone.
pub(crate) fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| with_tip(error).exit())
}

fn with_tip(mut error: Error) -> Error {
    let is_run = || std::env::args().any(|word| word == "run");
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(word)), true) =
        (error.kind(), error.get(ContextKind::InvalidArg), is_run())
        && !word.starts_with('-')
    {
        let tip = format!("the command comes after `--`: `cmn run -- {word}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        return error;
    }
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if let Some(tip) = tip(word) {
        // Words that only look alike: `get` for `edit`.
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn tip(word: &str) -> Option<String> {
    if OF_KUBECTL.contains(&word) {
        return Some(format!("kubectl does that on the same cluster: `kubectl {word}`"));
    }
    if let Some((_, verb)) = OTHERWISE.iter().find(|(other, _)| *other == word) {
        return Some(format!("here that is `cmn {verb}`"));
    }
    if let Some(kind) =
        KINDS.iter().find(|kind| **kind == word || kind.trim_end_matches('s') == word)
    {
        return Some(format!("a verb comes first: `cmn get {kind}`"));
    }
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(|verb| verb.get_name()).collect();
    closest(word, &verbs).map(|verb| format!("did you mean `cmn {verb}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        for (word, meant) in [
            ("rnu", "did you mean `cmn run`?"),
            ("tasks", "a verb comes first: `cmn get tasks`"),
            ("edit", "kubectl does that on the same cluster: `kubectl edit`"),
            ("ps", "here that is `cmn get tasks`"),
        ] {
            assert_eq!(tip(word).as_deref(), Some(meant));
        }
        assert_eq!(tip("frobnicate"), None);
        let command = Cli::command();
        for verb in command.get_subcommands().map(|verb| verb.get_name()) {
            assert!(!OF_KUBECTL.contains(&verb), "{verb} is here");
        }
    }
}
