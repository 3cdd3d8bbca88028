//! A server in a task, and a client that finds it behind a port of this machine.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::eventually;

/// A script that sends back the first line of every connection to the port called `ECHO`.
pub const SERVER: &str = "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, ReuseAddr => 1, \
                          LocalAddr => \"127.0.0.1\", LocalPort => $ENV{PORT_ECHO}); while ($c = $s->accept) { print $c \
                          scalar <$c>; close $c }'";

/// Connects several times, and gets back what it sent each time.
#[track_caller]
pub fn is_behind(port: u16) {
    for number in 0..3 {
        let sent = format!("line {number}\n");
        let got = eventually("the port to answer", || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
            stream.write_all(sent.as_bytes()).map_err(|e| e.to_string())?;
            let mut got = String::new();
            stream.read_to_string(&mut got).map_err(|e| e.to_string())?;
            if got.is_empty() { Err("nothing came".to_owned()) } else { Ok(got) }
        });
        assert_eq!(got, sent);
    }
}
