//! A command line that is still being typed: which words fit at its end.

use clap::{Arg, Command, builder::PossibleValue};

use super::live::Names;

/// What stands before the word that is being typed.
pub(super) struct Line<'c> {
    command: &'c Command,
    /// The verbs, outermost first.
    verbs: Vec<&'c str>,
    positionals: Vec<String>,
    /// Values of options, by the option's id.
    values: Vec<(String, String)>,
    /// The option whose value is being typed.
    option: Option<&'c Arg>,
    /// After `--` come words that are not ours.
    over: bool,
}

impl<'c> Line<'c> {
    /// `root` is built, so that it has its global options everywhere.
    pub(super) fn read(root: &'c Command, words: &[String]) -> Self {
        let mut line = Line {
            command: root,
            verbs: Vec::new(),
            positionals: Vec::new(),
            values: Vec::new(),
            option: None,
            over: false,
        };
        for word in words {
            line.take(word);
        }
        line
    }

    fn take(&mut self, word: &str) {
        // bash makes three words of `--option=value`.
        if word == "=" && self.option.is_some() {
            return;
        }
        if let Some(option) = self.option.take() {
            self.values.push((option.get_id().to_string(), word.to_owned()));
        } else if word == "--" {
            self.over = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            let option = self.command.get_arguments().find(|arg| arg.get_long() == Some(name));
            self.take_option(option, value);
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            self.take_letters(letters);
        } else if let Some(verb) =
            self.command.find_subcommand(word).filter(|_| self.positionals.is_empty())
        {
            self.command = verb;
            self.verbs.push(verb.get_name());
        } else {
            self.positionals.push(word.to_owned());
        }
    }

    fn take_option(&mut self, option: Option<&'c Arg>, value: Option<&str>) {
        let Some(option) = option.filter(|arg| arg.get_action().takes_values()) else { return };
        match value {
            Some(value) => self.values.push((option.get_id().to_string(), value.to_owned())),
            None => self.option = Some(option),
        }
    }

    /// `-it`, `-nplace`, `-n`.
    fn take_letters(&mut self, letters: &str) {
        for (index, letter) in letters.char_indices() {
            let option = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            let rest = &letters[index + letter.len_utf8()..];
            if option.is_some_and(|arg| arg.get_action().takes_values()) {
                return self.take_option(option, Some(rest).filter(|rest| !rest.is_empty()));
            }
        }
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.values.iter().rev().find(|(id, _)| id == option).map(|(_, value)| value.as_str())
    }

    /// Words that begin as what is typed does, each with what it means after a tab if that is known.
    pub(super) fn candidates(
        &self,
        typed: &str,
        ask: impl Fn(&Names, [Option<&str>; 3]) -> Vec<String>,
    ) -> Vec<String> {
        let ask = |names: Names| {
            ask(&names, ["kubeconfig", "context", "namespace"].map(|option| self.value(option)))
        };
        if self.over {
            return Vec::new();
        }
        let typed = if typed == "=" && self.option.is_some() { "" } else { typed };
        let found = if let Some(option) = self.option {
            self.of_option(option, ask)
        } else if let Some((name, _)) = typed.strip_prefix("--").and_then(|t| t.split_once('=')) {
            let option = self.command.get_arguments().find(|arg| arg.get_long() == Some(name));
            let values = option.map(|option| self.of_option(option, ask)).unwrap_or_default();
            values.into_iter().map(|value| format!("--{name}={value}")).collect()
        } else if typed.starts_with('-') {
            self.options()
        } else if self.command.has_subcommands() {
            self.verbs_here()
        } else {
            self.of_positional(typed, ask)
        };
        found.into_iter().filter(|candidate| candidate.starts_with(typed)).collect()
    }

    fn verbs_here(&self) -> Vec<String> {
        let verbs = self.command.get_subcommands().filter(|verb| !verb.is_hide_set());
        verbs.map(|verb| explained(verb.get_name(), verb.get_about())).collect()
    }

    fn options(&self) -> Vec<String> {
        let shown = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown
            .filter_map(|arg| Some(explained(&format!("--{}", arg.get_long()?), arg.get_help())))
            .collect()
    }

    fn of_option(&self, option: &Arg, ask: impl Fn(Names) -> Vec<String>) -> Vec<String> {
        let values = option.get_possible_values();
        if !values.is_empty() {
            return words(&values);
        }
        match option.get_id().as_str() {
            "context" => ask(Names::Contexts),
            "namespace" => ask(Names::Of("namespaces".into())),
            "queue" => ask(Names::Of("queues".into())),
            "framework" => ask(Names::Of("frameworks".into())),
            _ => Vec::new(),
        }
    }

    fn of_positional(&self, typed: &str, ask: impl Fn(Names) -> Vec<String>) -> Vec<String> {
        let number = self.positionals.len();
        let arguments = || self.command.get_positionals().filter(|arg| !arg.is_last_set());
        let Some(argument) = arguments().nth(number).or(arguments().last()) else {
            return Vec::new();
        };
        let values = argument.get_possible_values();
        if !values.is_empty() && number == 0 {
            return words(&values);
        }
        let of = |kind: &str| ask(Names::Of(kind.to_owned()));
        let with_kind = |kind: &str| -> Vec<String> {
            of(kind).into_iter().map(|name| format!("{kind}/{name}")).collect()
        };
        match (self.verbs.as_slice(), number, typed.split_once('/')) {
            (["get" | "describe" | "delete" | "wait"], _, Some((kind, _))) => with_kind(kind),
            (["get" | "describe" | "delete" | "wait"], 0, None) => ask(Names::Kinds),
            (["get" | "describe" | "delete" | "wait" | "top"], _, None) => {
                let kind = &self.positionals[0];
                if kind.contains('/') { Vec::new() } else { of(kind) }
            }
            (["logs"], 0, Some((kind @ ("framework" | "task"), _))) => with_kind(kind),
            (["logs" | "exec" | "attach" | "port-forward"] | ["sandbox", "ls"], 0, _) => {
                of("tasks")
            }
            _ => Vec::new(),
        }
    }
}

fn words(values: &[PossibleValue]) -> Vec<String> {
    let shown = values.iter().filter(|value| !value.is_hide_set());
    shown.map(|value| explained(value.get_name(), value.get_help())).collect()
}

fn explained(word: &str, help: Option<&clap::builder::StyledStr>) -> String {
    match help {
        Some(help) => format!("{word}\t{}", help.to_string().lines().next().unwrap_or_default()),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    /// What fits at the end of a line, without what it means, on a cluster with two tasks.
    fn fitting(line: &str) -> Vec<String> {
        let mut command = Cli::command();
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (typed, before) = words.split_last().expect("a split has a part");
        let ask = |names: &Names, [_, _, namespace]: [Option<&str>; 3]| match names {
            Names::Kinds => vec!["tasks".to_owned(), "queues".to_owned()],
            Names::Contexts => vec!["admin@a".to_owned()],
            Names::Of(kind) => {
                let place = namespace.unwrap_or("default");
                vec![format!("{kind}-of-{place}"), "web".to_owned()]
            }
        };
        let found = Line::read(&command, before).candidates(typed, ask);
        let words = found.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
        words.collect()
    }

    #[test]
    fn what_fits_depends_on_what_stands_before() {
        for (line, found) in [
            ("de", vec!["describe", "delete"]),
            ("get t", vec!["tasks"]),
            ("get tasks w", vec!["web"]),
            ("get -n shop tasks t", vec!["tasks-of-shop"]),
            ("get --namespace=shop task/", vec!["task/task-of-shop", "task/web"]),
            ("get tasks -o y", vec!["yaml"]),
            ("get --output=js", vec!["--output=json"]),
            ("get --output = ya", vec!["yaml"]),
            ("get tasks --all", vec!["--all-namespaces"]),
            ("exec -it w", vec!["web"]),
            ("exec web l", vec![]),
            ("run --queue w", vec!["web"]),
            ("run -- w", vec![]),
            ("sandbox l", vec!["ls"]),
            ("sandbox ls w", vec!["web"]),
            ("top ag", vec!["agents"]),
            ("top agents w", vec!["web"]),
            ("logs framework/w", vec!["framework/web"]),
            ("get --context ad", vec!["admin@a"]),
            ("completion z", vec!["zsh"]),
            ("apply -f w", vec![]),
        ] {
            assert_eq!(fitting(line), found, "{line}");
        }
        assert!(!fitting("").contains(&"__complete".to_owned()));
    }
}
