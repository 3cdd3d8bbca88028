//! `cmn wait`: until objects exist, are gone, or are as somebody wants them.

mod states;

use std::{process::ExitCode, str::FromStr, time::Duration};

use clap::Args as ClapArgs;
use futures::TryStreamExt;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::watcher,
};
use serde_json::Value;

use crate::{
    errors::{Failure, Result, exit},
    follow, get,
    kinds::{Kind, Kinds},
    kubeconfig::Cluster,
    output,
};

/// Before somebody who waits is told what for, and how far it is.
const TELL_AFTER: Duration = Duration::from_secs(1);

const NOT_THERE: &str = "not there";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn wait task/hello --for=state=Running
  cmn wait task/hello --for=delete --timeout 30s
  cmn wait agents --all --for=condition=Ready
  cmn wait task/hello --for=jsonpath='{.status.exitCode}'=0")]
pub(crate) struct Args {
    /// A kind and names, or KIND/NAME
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// `create`, `delete`, `state=S[,S...]`, `condition=C[=VALUE]` or `jsonpath='{.a.b}'[=VALUE]`
    #[arg(long = "for", value_name = "CONDITION")]
    condition: Condition,
    /// How long, e.g. `90s`, `5m`; 0 looks once
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    /// All objects of the kind with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Create,
    Delete,
    /// One of `status.state` (Task) or `status.phase` (others).
    State(Vec<String>),
    /// A condition of `status.conditions`.
    Holds {
        name: String,
        value: String,
    },
    Field {
        pointer: String,
        value: Option<String>,
    },
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        match (word, rest) {
            ("create", "") => Ok(Self::Create),
            ("delete", "") => Ok(Self::Delete),
            ("state", states) if !states.is_empty() => {
                Ok(Self::State(states.split(',').map(str::to_owned).collect()))
            }
            ("condition", rest) if !rest.is_empty() => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Self::Holds { name: name.to_owned(), value: value.to_owned() })
            }
            ("jsonpath", rest) if !rest.is_empty() => {
                let (path, value) = match rest.split_once("}=") {
                    Some((path, value)) => (path, Some(value.to_owned())),
                    None => (rest, None),
                };
                let path = path.trim_start_matches('{').trim_end_matches('}');
                let Some(fields) = path.strip_prefix('.') else {
                    return Err("a path looks like {.status.state}".to_owned());
                };
                let fields = fields.replace('[', ".").replace(']', "");
                Ok(Self::Field { pointer: format!("/{}", fields.replace('.', "/")), value })
            }
            _ => Err("expected create, delete, state=S, condition=C or jsonpath='{.a.b}'=VALUE"
                .to_owned()),
        }
    }
}

impl Condition {
    /// Whether an object, or its absence, is what is waited for.
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Delete, object) => object.is_none(),
            (_, None) => false,
            (Self::Create, Some(_)) => true,
            (Self::State(wanted), Some(object)) => {
                wanted.iter().any(|state| state.eq_ignore_ascii_case(now(object)))
            }
            (Self::Holds { name, value }, Some(object)) => {
                let conditions =
                    object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
                conditions.iter().any(|c| {
                    let same = |field: &Value, text: &str| {
                        field.as_str().is_some_and(|f| f.eq_ignore_ascii_case(text))
                    };
                    same(&c["type"], name) && same(&c["status"], value)
                })
            }
            (Self::Field { pointer, value }, Some(object)) => {
                match (object.pointer(pointer), value) {
                    (None | Some(Value::Null), _) => false,
                    (Some(_), None) => true,
                    (Some(Value::String(found)), Some(value)) => found == value,
                    (Some(found), Some(value)) => value == &found.to_string(),
                }
            }
        }
    }
}

fn now(object: &Value) -> &str {
    let status = &object["status"];
    status["state"].as_str().or_else(|| status["phase"].as_str()).unwrap_or("there")
}

/// `90`, `90s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time like 90s, 5m or 1h");
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last().unwrap_or('s')),
        None => (text, 's'),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        'h' => 3_600.0,
        'm' => 60.0,
        _ => 1.0,
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let targets = targets(&args, cluster).await?;
    if let Condition::State(wanted) = &args.condition {
        for kind in targets.iter().map(|(kind, _)| kind) {
            states::check(cluster, kind, wanted).await?;
        }
    }
    let deadline = tokio::time::Instant::now() + args.timeout;
    let work = async {
        for (kind, name) in &targets {
            one(&args, cluster, kind, name, deadline).await?;
        }
        Ok(())
    };
    match follow::unless_interrupted(work).await {
        Ok(result) => result.map(|()| ExitCode::SUCCESS),
        Err(follow::Interrupted) => Err(follow::resume_with(&["the same command waits again"])),
    }
}

async fn targets(args: &Args, cluster: &Cluster) -> Result<Vec<(Kind, String)>> {
    let mut targets = Vec::new();
    for selection in get::select(&mut Kinds::of(&cluster.client), &args.what).await? {
        let by_rule = args.all || args.selector.is_some();
        if selection.names.is_empty() != by_rule {
            return Err(Failure::new("which objects? Either names, or --selector, or --all")
                .hint(format!("see what there is: `cmn get {}`", selection.kind.plural)));
        }
        let mut names = selection.names;
        if by_rule {
            let params =
                ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
            let list = selection.kind.api(&cluster.client, &cluster.namespace).list(&params).await;
            let list = list.map_err(|error| {
                Failure::api(format!("cannot list {}", selection.kind.plural), &error)
            })?;
            names.extend(list.items.into_iter().filter_map(|object| object.metadata.name));
        }
        targets.extend(names.into_iter().map(|name| (selection.kind.clone(), name)));
    }
    Ok(targets)
}

async fn one(
    args: &Args,
    cluster: &Cluster,
    kind: &Kind,
    name: &str,
    deadline: tokio::time::Instant,
) -> Result<()> {
    let title = format!("{}/{name}", kind.qualified());
    let mut last = NOT_THERE.to_owned();
    let mut told = false;
    let api: Api<DynamicObject> = kind.api(&cluster.client, &cluster.namespace);
    let mut states = std::pin::pin!(follow::patiently(watcher::watch_object(api, name)));
    let tell_at = tokio::time::Instant::now() + TELL_AFTER;
    loop {
        let next = if told { deadline } else { deadline.min(tell_at) };
        match tokio::time::timeout_at(next, states.try_next()).await {
            Ok(state) => {
                let object = state?.flatten();
                let object = object.as_ref().and_then(|object| serde_json::to_value(object).ok());
                if args.condition.holds(object.as_ref()) {
                    return output::line(&format!("{title} condition met"));
                }
                last = object.as_ref().map_or(NOT_THERE, |object| now(object)).to_owned();
            }
            Err(_) if tokio::time::Instant::now() < deadline => {
                told = true;
                output::note(&format!("waiting for {title}; now: {last}"));
            }
            Err(_) => {
                let hint = match last.as_str() {
                    NOT_THERE => format!("see what there is: `cmn get {}`", kind.plural),
                    _ => format!("cmn describe {} {name}", kind.singular),
                };
                return Err(Failure::new(format!("timed out waiting for {title}; it is {last}"))
                    .hint(hint)
                    .exit(exit::TIMED_OUT));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_parsed_and_hold() {
        let task = json!({"status": {"state": "Running", "exitCode": 0, "conditions": [{"type": "Ready", "status": "True"}]}});
        for (text, holds) in [
            ("create", true),
            ("delete", false),
            ("state=Finished,Running", true),
            ("state=running", true),
            ("state=Failed", false),
            ("condition=ready", true),
            ("condition=Ready=false", false),
            ("jsonpath={.status.exitCode}=0", true),
            ("jsonpath={.status.conditions[0].type}=Ready", true),
            ("jsonpath={.status.nothing}", false),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.holds(Some(&task)), holds, "{text}");
        }
        assert!("delete".parse::<Condition>().unwrap().holds(None));
        assert!("jsonpath=status".parse::<Condition>().is_err());
        assert!("soon".parse::<Condition>().is_err());
    }

    #[test]
    fn times_are_parsed() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert!(duration("-1s").is_err());
        assert!(duration("soon").is_err());
    }
}
