//! The keys that leave a task's terminal without ending what runs there: docker's, by default Ctrl-P Ctrl-Q.

use std::str::FromStr;

/// Finds its keys in what is typed. What may be their beginning is held back until it is known not to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    /// Never empty.
    keys: Vec<u8>,
    /// How many of them were typed last.
    typed: usize,
}

impl DetachKeys {
    pub(crate) const USUAL: &str = "ctrl-p,ctrl-q";

    /// What of this is for the task; `None` when the keys were typed.
    pub(crate) fn take_out(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let mut rest = Vec::with_capacity(piece.len() + self.typed);
        for byte in piece {
            if *byte != self.keys[self.typed] {
                rest.extend_from_slice(&self.keys[..self.typed]);
                self.typed = 0;
            }
            match *byte == self.keys[self.typed] {
                true => self.typed += 1,
                false => rest.push(*byte),
            }
            if self.typed == self.keys.len() {
                return None;
            }
        }
        Some(rest)
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// `ctrl-p,ctrl-q`, `ctrl-@,x`: keys with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |word: &str| match word.as_bytes() {
            [key] => Ok(*key),
            [b'c' | b'C', b't' | b'T', b'r' | b'R', b'l' | b'L', b'-', key] => {
                // A terminal sends the low five bits of what is pressed with it.
                match key.to_ascii_uppercase() {
                    upper @ b'@'..=b'_' => Ok(upper & 0x1f),
                    _ => Err(format!(
                        "there is no key {word:?}: after ctrl- comes a to z or one of @ [ \\ ] ^ _"
                    )),
                }
            }
            _ => Err(format!(
                "{word:?} is no key: keys look like `a` and `ctrl-a`, with commas between them"
            )),
        };
        let keys = text.split(',').map(key).collect::<Result<Vec<u8>, String>>()?;
        Ok(DetachKeys { keys, typed: 0 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.keys);
        assert_eq!(keys(DetachKeys::USUAL).unwrap(), [16, 17]);
        assert_eq!(keys("a,ctrl-@,CTRL-\\").unwrap(), [b'a', 0, 28]);
        for bad in ["", "ctrl-", "ctrl-1", "ab", "a,,b", "alt-a"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_keys_in_a_row_leave_and_all_else_is_passed_on() {
        let mut keys: DetachKeys = "ctrl-p,ctrl-q".parse().unwrap();
        assert_eq!(keys.take_out(b"ls\r").unwrap(), b"ls\r");
        assert_eq!(keys.take_out(b"\x10").unwrap(), b"", "it may be their beginning");
        assert_eq!(keys.take_out(b"a").unwrap(), b"\x10a", "and was not");
        assert_eq!(keys.take_out(b"\x10\x10").unwrap(), b"\x10");
        assert_eq!(keys.take_out(b"\x11"), None);
        let mut keys: DetachKeys = "x".parse().unwrap();
        assert_eq!(keys.take_out(b"abx"), None);
    }
}
