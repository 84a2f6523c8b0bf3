// SPDX-License-Identifier: BSD-2-Clause

//! Requests, as dmctl(8) and libdevmapper make them.

use alloc::vec::Vec;

use super::plist::{Dict, Object};

/// A request that is being built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request(Dict);

impl Request {
    /// A request for `command`, with the version of the protocol that dmctl(8) sends.
    pub fn new(command: &str) -> Request {
        let version = [4, 0, 0].map(Object::Signed).to_vec();
        Request(Dict::default()).with("command", command).with("version", version)
    }

    /// A request for `command` about the device called `name`.
    pub fn on(command: &str, name: &str) -> Request {
        Request::new(command).with("name", name)
    }

    /// A `reload` request, with lines of start, length, target and parameters.
    pub fn reload(name: &str, lines: &[(u64, u64, &str, &str)]) -> Request {
        Request::on("reload", name).lines(lines)
    }

    /// Sets `cmd_data` to lines.
    pub fn lines(self, lines: &[(u64, u64, &str, &str)]) -> Request {
        let lines: Vec<_> = lines.iter().map(|l| line(l.0, l.1, l.2, l.3).into()).collect();
        self.with("cmd_data", lines)
    }

    /// The request with another key, or another value of a key.
    pub fn with(mut self, key: &str, value: impl Into<Object>) -> Request {
        self.0.put(key, value);
        self
    }

    /// The request without a key.
    pub fn without(mut self, key: &str) -> Request {
        self.0.0.remove(key);
        self
    }

    /// The request with these flags.
    pub fn flags(self, flags: u32) -> Request {
        self.with("flags", u64::from(flags))
    }

    /// The request's dictionary.
    pub fn dict(&self) -> &Dict {
        &self.0
    }
}

/// One line of a table.
pub fn line(start: u64, length: u64, kind: &str, params: &str) -> Dict {
    let mut line = Dict::default();
    line.put("start", start);
    line.put("length", length);
    line.put("type", kind);
    line.put("params", params);
    line
}
