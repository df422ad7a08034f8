//! A short question for a few refs: the `ls-refs` command of Git's protocol version 2 over HTTP.
//!
//! libgit2 speaks version 0 only, in which a server lists all its refs at every poll: 1.2 MB for a repository of 18,000
//! refs. Most polls find nothing new, so they ask this way first, one POST and some 200 bytes; libgit2 takes over when
//! there is something to download, or when the server does not know version 2.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use git2::Oid;

use super::Endpoint;
use super::http::HttpTransport;
use crate::git::location::Location;

/// A ref name has at most 255 bytes on common servers; this is room for thousands of them.
const MAX_ANSWER: u64 = 1 << 20;

impl Endpoint {
    /// Where the given refs point, by name; `None` when the server cannot be asked so. Failures are not reported: the
    /// long way is gone next, and knows better what is wrong.
    pub(in crate::git) fn poll(self: &Arc<Self>, references: &[String]) -> Option<BTreeMap<String, Oid>> {
        let Location::Http { base, .. } = &self.location else { return None };
        self.begin();
        let mut stream = HttpTransport::new(Arc::clone(self), base.clone()).version_2();
        let mut answer = Vec::new();
        let asked =
            stream.write_all(&question(references)).and_then(|()| stream.take(MAX_ANSWER).read_to_end(&mut answer));
        drop(self.take_failure());
        asked.ok().and_then(|_| answered(&answer))
    }
}

fn question(references: &[String]) -> Vec<u8> {
    let mut bytes = line("command=ls-refs\n");
    bytes.extend(line("object-format=sha1\n"));
    bytes.extend(b"0001");
    for reference in references {
        bytes.extend(line(&format!("ref-prefix {reference}\n")));
    }
    bytes.extend(b"0000");
    bytes
}

/// A line of the protocol: its length with these four digits, and the text.
fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// Lines `ID NAME ATTRIBUTES…` up to the end mark; `None` for anything else.
fn answered(mut bytes: &[u8]) -> Option<BTreeMap<String, Oid>> {
    let mut found = BTreeMap::new();
    loop {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = usize::from_str_radix(std::str::from_utf8(length).ok()?, 16).ok()?;
        if length == 0 {
            return Some(found);
        }
        let (text, rest) = rest.split_at_checked(length.checked_sub(4)?)?;
        let mut words = std::str::from_utf8(text).ok()?.trim_end().split(' ');
        let (id, name) = (Oid::from_str(words.next()?).ok()?, words.next()?);
        found.insert(name.to_owned(), id);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::{answered, line, question};

    #[test]
    fn questions_are_packet_lines() {
        let bytes = question(&["refs/heads/main".to_owned()]);
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text, "0014command=ls-refs\n0017object-format=sha1\n0001001fref-prefix refs/heads/main\n0000");
    }

    #[test]
    fn answers() {
        let id = "1".repeat(40);
        let one = String::from_utf8(line(&format!("{id} refs/heads/a symref-target:refs/heads/b\n"))).expect("text");
        for (text, want) in [
            ("0000".to_owned(), Some(0)),
            (format!("{one}0000"), Some(1)),
            (one.clone(), None),
            (format!("{one}{one}"), None),
            (String::new(), None),
            ("0003".to_owned(), None),
            ("ffff".to_owned(), None),
            ("zzzz".to_owned(), None),
            ("000dERR nope0000".to_owned(), None),
            ("<html>".to_owned(), None),
        ] {
            assert_eq!(answered(text.as_bytes()).map(|found| found.len()), want, "{text:?}");
        }
    }
}
