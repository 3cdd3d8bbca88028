//! What a request asks for, in its query.

use axum::http::Uri;

use super::refusal::Refusal;

/// Of `exec` and `attach`. Other parameters are none of the agent's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Of `attach`: what was printed before, too.
    pub logs: bool,
}

impl Wanted {
    pub(super) fn parse(uri: &Uri) -> Result<Wanted, Refusal> {
        let mut wanted = Wanted::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let yes = matches!(value.as_ref(), "1" | "t" | "T" | "true" | "True" | "TRUE");
            match name.as_ref() {
                "command" => wanted.command.push(value.into_owned()),
                "stdin" => wanted.stdin = yes,
                "stdout" => wanted.stdout = yes,
                "stderr" => wanted.stderr = yes,
                "tty" => wanted.tty = yes,
                "logs" => wanted.logs = yes,
                _ => {}
            }
        }
        // A terminal has one output.
        wanted.stderr &= !wanted.tty;
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Refusal::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(wanted)
    }
}

/// Of `portforward`.
pub(super) fn port(uri: &Uri) -> Result<u16, Refusal> {
    let query = uri.query().unwrap_or_default();
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let port = parameters.find(|(name, _)| name == "port").and_then(|(_, port)| port.parse().ok());
    port.filter(|port| *port > 0)
        .ok_or_else(|| Refusal::bad_request("port: must be a number from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(query: &str) -> Result<Wanted, Refusal> {
        Wanted::parse(&format!("/exec/a/b/c?{query}").parse().unwrap())
    }

    #[test]
    fn a_command_is_put_together() {
        let wanted = parse("command=sh&command=-c&command=a+b%26c&stdout=true&stderr=1&x=y");
        let command = ["sh", "-c", "a b&c"].map(str::to_owned).to_vec();
        let expected = Wanted { command, stdout: true, stderr: true, ..Wanted::default() };
        assert_eq!(wanted.unwrap(), expected);
        assert!(!parse("stdout=true&stderr=true&tty=true").unwrap().stderr);
        assert!(parse("command=x&stdout=false").is_err());
    }

    #[test]
    fn a_port_is_one() {
        let of = |query: &str| port(&format!("/p?{query}").parse().unwrap()).ok();
        assert_eq!(of("port=80"), Some(80));
        for bad in ["", "port=0", "port=65536", "port=x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
